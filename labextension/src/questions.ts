import type { Api } from './api';
import type { Status } from './records';
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
    ...runsAsked(state).flatMap(run => {
      const steps = stepsOf(run);
      return state.opened.has(keys.logsOf(run.id)) ? [steps, linesOf(run)] : [steps];
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

/** A run to ask about; how it ended, and at which attempt, if it has ended. */
interface AskedRun {
  readonly id: string;
  readonly ending: string | null;
}

/** The runs whose steps are shown: what is unfolded, and what goes on by itself. */
function runsAsked(state: PanelState): readonly AskedRun[] {
  const found = new Map<string, AskedRun>();
  const add = (id: string, status: Status, attempts: number): void => {
    found.set(id, { id, ending: isUnfinished(status) ? null : `${status}/${attempts}` });
  };
  for (const { run_id: id, status } of state.sweeps.flatMap(sweep => sweep.trials)) {
    if (id !== null && state.opened.has(keys.runOf(id))) {
      add(id, status, 1);
    }
  }
  for (const { run_id: id, status, attempts, sweep } of state.runs) {
    const goesOn = isUnfinished(status) && sweep === null;
    if (goesOn || state.opened.has(keys.runOf(id))) {
      add(id, status, attempts);
    }
  }
  return [...found.values()];
}

function stepsOf({ id: runId, ending }: AskedRun): Question {
  return {
    key: keys.runOf(runId),
    ...pace(keys.runOf(runId), ending),
    ask: async (api, path) => {
      const run = await api.run(path, runId);
      return ({ details }) => ({ details: { ...details, [runId]: run } });
    }
  };
}

function linesOf({ id: runId, ending }: AskedRun): Question {
  return {
    key: keys.logsOf(runId),
    ...pace(keys.logsOf(runId), ending),
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

/** Ask at every look while something goes on, and once more for each way that it has ended. */
function pace(key: string, ending: string | null): Pick<Question, 'id' | 'everyMs'> {
  return ending === null ? { id: key, everyMs: 0 } : { id: `${key}/${ending}`, everyMs: Infinity };
}
