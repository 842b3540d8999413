import type { ServerConnection } from '@jupyterlab/services';

import type { ModelItem, Page, RunSummary } from './documents';
import type {
  CheckReport,
  Comparison,
  DeploymentRecord,
  InitAnswer,
  MonitorReport,
  ProjectAnswer,
  RunRecord,
  SweepRecord,
  Trace
} from './records';
import { change, file, read } from './request';

/** The newest runs, and the newest sweeps, that the panel lists. */
const RUNS_SHOWN = 40;
const SWEEPS_SHOWN = 5;

/** The last lines of a run's log that the panel shows. */
const LOG_LINES = 200;

/** How to search a space of parameters: the options of `sweep`, as people typed them. */
export interface SweepOptions {
  readonly search: string;
  readonly trials: number | null;
  readonly parallel: number;
  readonly metric: string | null;
  readonly minimize: boolean;
}

/** The commands that the panel calls; `path` is the contents path that it looks at. */
export class Api {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  project(path: string): Promise<ProjectAnswer> {
    return read(this._settings, 'project', { path });
  }

  /** Write the example project into a new `folder` of the folder `path`. */
  init(path: string, folder: string): Promise<InitAnswer> {
    return change(this._settings, 'init', { path, folder, example: true });
  }

  /** Hold the project against its rules, and mend what can be mended if asked to. */
  check(path: string, fix: boolean): Promise<CheckReport> {
    return change(this._settings, 'check', { path, fix });
  }

  runs(path: string): Promise<Page<RunSummary>> {
    return read(this._settings, 'runs', { path, limit: RUNS_SHOWN });
  }

  sweeps(path: string): Promise<Page<SweepRecord>> {
    return read(this._settings, 'runs', { path, limit: SWEEPS_SHOWN, sweeps: true });
  }

  run(path: string, runId: string): Promise<RunRecord> {
    return read(this._settings, 'run', { path, run_id: runId });
  }

  /** Start a run and answer at once; a `pipeline` of `null` is the open notebook's. */
  train(path: string, pipeline: string | null, param: readonly string[]): Promise<RunRecord> {
    return change(this._settings, 'train', { path, pipeline, param: [...param], detach: true });
  }

  /** Start a sweep over the open notebook's parameters and answer at once. */
  sweep(path: string, param: readonly string[], options: SweepOptions): Promise<SweepRecord> {
    return change(this._settings, 'sweep', { path, param: [...param], ...options, detach: true });
  }

  rerun(path: string, runId: string): Promise<RunRecord> {
    return change(this._settings, 'rerun', { path, run_id: runId, detach: true });
  }

  /** Cancel a run or a sweep. */
  cancel(path: string, runId: string): Promise<unknown> {
    return change(this._settings, 'cancel', { path, run_id: runId });
  }

  /** Hold runs side by side; with `now` also against the saved notebooks. */
  compare(path: string, runIds: readonly string[], now: boolean): Promise<Comparison> {
    return read(this._settings, 'compare', { path, run_ids: runIds, now });
  }

  logs(path: string, runId: string): Promise<Page<string>> {
    return read(this._settings, 'logs', { path, run_id: runId, lines: LOG_LINES });
  }

  /** The bytes of a file that a run, or an earlier attempt of it, left. */
  artifact(path: string, runId: string, name: string, attempt: number | null): Promise<Blob> {
    const query = { path, run_id: runId, name };
    return file(this._settings, attempt === null ? query : { ...query, attempt });
  }

  models(path: string): Promise<Page<ModelItem>> {
    return read(this._settings, 'models', { path });
  }

  /** Deploy `NAME:VERSION` and answer when it serves. */
  deploy(path: string, model: string): Promise<DeploymentRecord> {
    return change(this._settings, 'deploy', { path, model });
  }

  deployments(path: string): Promise<Page<DeploymentRecord>> {
    return read(this._settings, 'deployments', { path });
  }

  undeploy(path: string, endpoint: string): Promise<unknown> {
    return change(this._settings, 'undeploy', { path, endpoint });
  }

  monitor(path: string, endpoint: string): Promise<MonitorReport> {
    return read(this._settings, 'monitor', { path, endpoint });
  }

  trace(path: string, reference: string): Promise<Trace> {
    return read(this._settings, 'trace', { path, reference });
  }
}
