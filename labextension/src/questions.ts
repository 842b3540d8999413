import type { Api } from './api';
import { isUnfinished, keys, type PanelState } from './state';

/** Something to ask the server about what is unfolded or unfinished. */
export interface Question {
  /** Where what went wrong is shown. */
  readonly key: string;
  /** Tells questions apart; a new id is asked at once. */
  readonly id: string;
  /** The least time between two asks; `Infinity` for what never changes again. */
  readonly everyMs: number;
  /** Ask, and answer with the change of the state that the answer makes. */
  readonly ask: (api: Api, path: string) => Promise<Change>;
}

type Change = (state: PanelState) => Partial<PanelState>;

/** Milliseconds between two looks at a report that many calls go into. */
const REPORT_MS = 10000;

/** What there is to ask in a state: steps, logs, reports, traces. */
export function questionsOf(state: PanelState): readonly Question[] {
  return [
    ...state.runs.flatMap(({ run_id: id, status }) => {
      const isFinal = !isUnfinished(status);
      const steps = !isFinal || state.opened.has(keys.runOf(id)) ? [stepsOf(id, isFinal)] : [];
      return state.opened.has(keys.logsOf(id)) ? [...steps, linesOf(id, isFinal)] : steps;
    }),
    ...state.deployments
      .filter(({ endpoint, status }) => {
        return status === 'running' && state.opened.has(keys.monitorOf(endpoint));
      })
      .map(({ endpoint }) => reportOf(endpoint)),
    ...[...state.opened].flatMap(key => {
      const reference = keys.tracedBy(key);
      return reference === null ? [] : [traceOf(reference)];
    })
  ];
}

function stepsOf(runId: string, isFinal: boolean): Question {
  return {
    key: keys.runOf(runId),
    ...pace(keys.runOf(runId), isFinal),
    ask: async (api, path) => {
      const run = await api.run(path, runId);
      return ({ details }) => ({ details: { ...details, [runId]: run } });
    }
  };
}

function linesOf(runId: string, isFinal: boolean): Question {
  return {
    key: keys.logsOf(runId),
    ...pace(keys.logsOf(runId), isFinal),
    ask: async (api, path) => {
      const { items } = await api.logs(path, runId);
      return ({ logs }) => ({ logs: { ...logs, [runId]: items } });
    }
  };
}

function reportOf(endpoint: string): Question {
  return {
    key: keys.monitorOf(endpoint),
    id: keys.monitorOf(endpoint),
    everyMs: REPORT_MS,
    ask: async (api, path) => {
      const report = await api.monitor(path, endpoint);
      return ({ reports }) => ({ reports: { ...reports, [endpoint]: report } });
    }
  };
}

function traceOf(reference: string): Question {
  return {
    key: keys.traceOf(reference),
    id: keys.traceOf(reference),
    everyMs: Infinity,
    ask: async (api, path) => {
      const trace = await api.trace(path, reference);
      return ({ traces }) => ({ traces: { ...traces, [reference]: trace } });
    }
  };
}

/** Ask at every look while something goes on, and once more when it has ended. */
function pace(key: string, isFinal: boolean): Pick<Question, 'id' | 'everyMs'> {
  return isFinal ? { id: `${key}/final`, everyMs: Infinity } : { id: key, everyMs: 0 };
}
