import type { ModelItem, RunSummary } from './documents';
import type { Problem } from './outcome';
import type {
  CheckReport,
  DeploymentRecord,
  MonitorReport,
  ProjectAnswer,
  RunRecord,
  Status,
  SweepRecord,
  Trace
} from './records';

/** Where the panel looks: the open notebook, or the file browser's folder without one. */
export interface Place {
  /** The contents path that goes with every request. */
  readonly path: string;
  /** The contents path of the file browser's folder, where a new project would be made. */
  readonly folder: string;
  /** The contents path of the open notebook. */
  readonly notebook: string | null;
}

/** All that the panel shows; never changed in place. */
export interface PanelState {
  readonly place: Place;
  /** Whether an answer about this place, good or bad, has come. */
  readonly loaded: boolean;
  readonly project: ProjectAnswer | null;
  readonly runs: readonly RunSummary[];
  readonly sweeps: readonly SweepRecord[];
  /** What the last look at the rules found; `null` before it. */
  readonly check: CheckReport | null;
  readonly models: readonly ModelItem[];
  readonly deployments: readonly DeploymentRecord[];
  /** Runs with their steps, by run id. */
  readonly details: Readonly<Record<string, RunRecord>>;
  /** The last lines of runs' logs, by run id. */
  readonly logs: Readonly<Record<string, readonly string[]>>;
  /** Monitor reports, by endpoint. */
  readonly reports: Readonly<Record<string, MonitorReport>>;
  /** Traces, by reference. */
  readonly traces: Readonly<Record<string, Trace>>;
  /** What people typed into the parameter form, by name. */
  readonly parameters: Readonly<Record<string, string>>;
  /** What people typed about a sweep, by the option's name. */
  readonly sweepOptions: Readonly<Record<string, string>>;
  /** The ids of runs that are chosen to be compared. */
  readonly selected: ReadonlySet<string>;
  /** Keys of what is unfolded. */
  readonly opened: ReadonlySet<string>;
  /** Keys of actions under way. */
  readonly busy: ReadonlySet<string>;
  /** What went wrong, by the key of the section or action. */
  readonly problems: Readonly<Record<string, Problem>>;
  /** Milliseconds since the epoch at the last answer, for ages and elapsed times. */
  readonly now: number;
}

/** The keys under which things are unfolded, under way, or have gone wrong. */
export const keys = {
  project: 'project',
  init: 'init',
  run: 'run',
  notebook: 'notebook',
  form: 'form',
  sweep: 'sweep',
  sweepForm: 'sweep-form',
  check: 'check',
  allRuns: 'all-runs',
  section: (name: SectionName): string => `section/${name}`,
  runOf: (runId: string): string => `run/${runId}`,
  logsOf: (runId: string): string => `logs/${runId}`,
  cancelOf: (runId: string): string => `cancel/${runId}`,
  rerunOf: (runId: string): string => `rerun/${runId}`,
  artifactsOf: (runId: string): string => `artifacts/${runId}`,
  sweepOf: (sweepId: string): string => `sweep/${sweepId}`,
  trialsOf: (sweepId: string): string => `trials/${sweepId}`,
  modelOf: (name: string): string => `model/${name}`,
  deployOf: (name: string): string => `deploy/${name}`,
  undeployOf: (endpoint: string): string => `undeploy/${endpoint}`,
  monitorOf: (endpoint: string): string => `monitor/${endpoint}`,
  traceOf: (reference: string): string => `trace/${reference}`,
  /** Whether a key means the same in every project. */
  isLasting: (key: string): boolean => key.startsWith('section/') || key === keys.form,
  /** The reference that a trace's key is of; `null` for any other key. */
  tracedBy: (key: string): string | null => (key.startsWith('trace/') ? key.slice(6) : null)
};

export type SectionName = 'check' | 'runs' | 'models' | 'deployments';

export function initialState(now: number): PanelState {
  return {
    place: { path: '', folder: '', notebook: null },
    loaded: false,
    project: null,
    runs: [],
    sweeps: [],
    check: null,
    models: [],
    deployments: [],
    details: {},
    logs: {},
    reports: {},
    traces: {},
    parameters: {},
    sweepOptions: {},
    selected: new Set(),
    opened: new Set((['check', 'runs', 'models', 'deployments'] as const).map(keys.section)),
    busy: new Set(),
    problems: {},
    now
  };
}

export function isUnfinished(status: Status): boolean {
  return status === 'pending' || status === 'running';
}

/** Whether something will change by itself soon, so that it pays to look often. */
export function isLively(state: PanelState): boolean {
  return (
    state.busy.size > 0 ||
    state.runs.some(run => isUnfinished(run.status)) ||
    state.sweeps.some(sweep => isUnfinished(sweep.status)) ||
    state.deployments.some(deployment => deployment.status === 'starting')
  );
}

export function including<T>(set: ReadonlySet<T>, value: T): ReadonlySet<T> {
  return new Set(set).add(value);
}

export function excluding<T>(set: ReadonlySet<T>, value: T): ReadonlySet<T> {
  const smaller = new Set(set);
  smaller.delete(value);
  return smaller;
}

/** The set with the value if it lacks it, without it if it has it. */
export function flipped<T>(set: ReadonlySet<T>, value: T): ReadonlySet<T> {
  return set.has(value) ? excluding(set, value) : including(set, value);
}

/** The record without one key. */
export function omitting<T>(
  record: Readonly<Record<string, T>>,
  key: string
): Readonly<Record<string, T>> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));
}
