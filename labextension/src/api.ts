import type { ServerConnection } from '@jupyterlab/services';

import type { ModelItem, Page, RunSummary } from './documents';
import type {
  DeploymentRecord,
  InitAnswer,
  MonitorReport,
  ProjectAnswer,
  RunRecord,
  Trace
} from './records';
import { request } from './request';

/** The newest runs that the panel lists. */
const RUNS_SHOWN = 20;

/** The last lines of a run's log that the panel shows. */
const LOG_LINES = 200;

/** The commands that the panel calls; `path` is the contents path that it looks at. */
export class Api {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  project(path: string): Promise<ProjectAnswer> {
    return request(this._settings, 'GET', 'project', { path });
  }

  /** Write the example project into a new `folder` of the folder `path`. */
  init(path: string, folder: string): Promise<InitAnswer> {
    return request(this._settings, 'POST', 'init', { path, folder, example: true });
  }

  runs(path: string): Promise<Page<RunSummary>> {
    return request(this._settings, 'GET', 'runs', { path, limit: RUNS_SHOWN });
  }

  run(path: string, runId: string): Promise<RunRecord> {
    return request(this._settings, 'GET', 'run', { path, run_id: runId });
  }

  /** Start a run and answer at once; a `pipeline` of `null` is the open notebook's. */
  train(path: string, pipeline: string | null, param: readonly string[]): Promise<RunRecord> {
    const body = { path, pipeline, param: [...param], detach: true };
    return request(this._settings, 'POST', 'train', body);
  }

  cancel(path: string, runId: string): Promise<RunRecord> {
    return request(this._settings, 'POST', 'cancel', { path, run_id: runId });
  }

  logs(path: string, runId: string): Promise<Page<string>> {
    return request(this._settings, 'GET', 'logs', { path, run_id: runId, lines: LOG_LINES });
  }

  models(path: string): Promise<Page<ModelItem>> {
    return request(this._settings, 'GET', 'models', { path });
  }

  /** Deploy `NAME:VERSION` and answer when it serves. */
  deploy(path: string, model: string): Promise<DeploymentRecord> {
    return request(this._settings, 'POST', 'deploy', { path, model });
  }

  deployments(path: string): Promise<Page<DeploymentRecord>> {
    return request(this._settings, 'GET', 'deployments', { path });
  }

  undeploy(path: string, endpoint: string): Promise<unknown> {
    return request(this._settings, 'POST', 'undeploy', { path, endpoint });
  }

  monitor(path: string, endpoint: string): Promise<MonitorReport> {
    return request(this._settings, 'GET', 'monitor', { path, endpoint });
  }

  trace(path: string, reference: string): Promise<Trace> {
    return request(this._settings, 'GET', 'trace', { path, reference });
  }
}
