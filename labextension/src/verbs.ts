/** What people can have done: each asks the server once, and shows what came of it. */
import type { SweepOptions } from './api';
import type { ModelItem } from './documents';
import type { PanelModel } from './model';
import type { CheckReport, InitAnswer, RunRecord } from './records';
import { RequestFailed } from './request';
import { including, keys, type PanelState } from './state';

/**
 * Run the open notebook, or a pipeline by name.
 *
 * `prepare` saves the notebook; when it rejects, nothing is run.
 */
export function run(
  model: PanelModel,
  pipeline: string | null,
  prepare: () => Promise<void>
): Promise<void> {
  return model.act(keys.run, async (api, path) => {
    await prepare();
    const given = pipeline === null ? assignments(model.state) : [];
    const started = await api.train(path, pipeline, given);
    model.take(state => withRun(state, started));
  });
}

/** Start a sweep over what was typed; the command says what is wrong with it. */
export function sweep(model: PanelModel, prepare: () => Promise<void>): Promise<void> {
  return model.act(keys.sweep, async (api, path) => {
    const options = sweepOptionsOf(model.state.sweepOptions);
    await prepare();
    const started = await api.sweep(path, assignments(model.state), options);
    model.take(({ sweeps, opened }) => ({
      sweeps: [started, ...sweeps],
      opened: including(opened, keys.section('runs'))
    }));
  });
}

export function rerun(model: PanelModel, runId: string): Promise<void> {
  return model.act(keys.rerunOf(runId), async (api, path) => {
    const started = await api.rerun(path, runId);
    model.take(state => withRun(state, started));
  });
}

/** Cancel a run or a sweep. */
export function cancel(model: PanelModel, runId: string): Promise<void> {
  return model.act(keys.cancelOf(runId), (api, path) => api.cancel(path, runId));
}

/** Take a file that a run left, and show or save it. */
export function openArtifact(
  model: PanelModel,
  runId: string,
  name: string,
  attempt: number | null,
  show: (data: Blob) => Promise<void>
): Promise<void> {
  return model.act(keys.artifactsOf(runId), async (api, path) => {
    await show(await api.artifact(path, runId, name, attempt));
  });
}

/** Hold the project against its rules; `prepare` saves the notebook, so that it is looked at. */
export function check(model: PanelModel, prepare: () => Promise<void>): Promise<void> {
  return model.act(keys.check, async (api, path) => {
    await prepare();
    const found = await api.check(path, false);
    model.take(({ opened }) => ({
      check: found,
      opened: including(opened, keys.section('check'))
    }));
  });
}

/**
 * Mend what can be mended.
 *
 * `prepare` saves the notebook; `reload` takes what was mended into the notebooks that are open, and
 * returns those that have unsaved edits.
 */
export function fix(
  model: PanelModel,
  prepare: () => Promise<void>,
  reload: (report: CheckReport) => Promise<readonly string[]>
): Promise<void> {
  return model.act(keys.check, async (api, path) => {
    await prepare();
    const found = await api.check(path, true);
    model.take(() => ({ check: found }));
    const left = await reload(found);
    if (left.length > 0) {
      throw new RequestFailed(
        'unsaved-notebook',
        `${left.join(', ')}: mended on disk, not here, because of unsaved edits.`,
        'File > Reload Notebook from Disk takes the mended one; saving puts yours back.'
      );
    }
  });
}

export function deploy(model: PanelModel, item: ModelItem): Promise<void> {
  const name = `${item.model}:${item.version}`;
  return model.act(keys.deployOf(name), async (api, path) => {
    model.refresh(); // the deployment is listed while it starts
    await api.deploy(path, name);
    model.take(({ opened }) => ({ opened: including(opened, keys.section('deployments')) }));
  });
}

export function undeploy(model: PanelModel, endpoint: string): Promise<void> {
  return model.act(keys.undeployOf(endpoint), (api, path) => api.undeploy(path, endpoint));
}

/** Write the example project into the file browser's folder. */
export function init(
  model: PanelModel,
  name: string,
  done: (made: InitAnswer) => Promise<void>
): Promise<void> {
  return model.act(keys.init, async api => {
    await done(await api.init(model.state.place.folder, name));
  });
}

function assignments({ parameters }: PanelState): string[] {
  return Object.entries(parameters).map(([name, value]) => `${name}=${value}`);
}

/** The state with a run that was just started, or has a new attempt, as the newest. */
function withRun(state: PanelState, started: RunRecord): Partial<PanelState> {
  const others = state.runs.filter(other => other.run_id !== started.run_id);
  const isTrial = others.length < state.runs.length && started.sweep !== null;
  return {
    runs: isTrial
      ? state.runs.map(other => (other.run_id === started.run_id ? started : other))
      : [started, ...others],
    details: { ...state.details, [started.run_id]: started },
    opened: including(state.opened, keys.section('runs'))
  };
}

/** What was typed about a sweep as the command's options; the command checks them. */
function sweepOptionsOf(typed: Readonly<Record<string, string>>): SweepOptions {
  return {
    search: typed.search ?? 'grid',
    trials: typed.trials ? Number(typed.trials) : null,
    parallel: typed.parallel ? Number(typed.parallel) : 1,
    metric: typed.metric?.trim() || null,
    minimize: typed.direction === 'minimize'
  };
}
