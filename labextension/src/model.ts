import { Poll } from '@lumino/polling';
import { Signal, type ISignal } from '@lumino/signaling';

import type { Api } from './api';
import { folderOf } from './format';
import { type Outcome, type Problem, problemOf, settled } from './outcome';
import { type Question, questionsOf } from './questions';
import type { ProjectAnswer } from './records';
import {
  excluding,
  flipped,
  including,
  initialState,
  isLively,
  keys,
  omitting,
  type PanelState,
  type Place,
  type SectionName
} from './state';

/** Milliseconds between two looks while something is unfinished, and otherwise. */
const LIVELY_MS = 2000;
const CALM_MS = 10000;

/** Milliseconds in which JupyterLab will have saved a notebook. */
const SAVING_MS = 500;

/**
 * Holds what the panel shows and announces every change of it.
 *
 * It asks the server only while somebody can see the panel, and more often while something is
 * unfinished; answers about a place that was left meanwhile are dropped.
 */
export class PanelModel {
  constructor(private readonly _api: Api) {
    this._poll = new Poll({
      name: 'nbmlops:panel',
      auto: false,
      factory: () => this._load(),
      frequency: { interval: CALM_MS, backoff: false },
      standby: () => !this._visible || document.hidden
    });
    document.addEventListener('visibilitychange', this._onVisibilityChange);
    void this._poll.start();
  }

  /** Emitted with the new state whenever it changes. */
  get changed(): ISignal<this, PanelState> {
    return this._changed;
  }

  get state(): PanelState {
    return this._state;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    document.removeEventListener('visibilitychange', this._onVisibilityChange);
    this._poll.dispose();
    Signal.clearData(this);
  }

  /** Look elsewhere; what was typed and went wrong there is forgotten. */
  setPlace(place: Place): void {
    const { path, folder } = this._state.place;
    if (place.path === path) {
      if (place.folder !== folder) {
        this._set({ place });
      }
      return;
    }
    this._set({ place, loaded: false, parameters: {}, sweepOptions: {}, problems: {} });
    this.refresh();
  }

  setVisible(visible: boolean): void {
    this._visible = visible;
    this.refresh();
  }

  /** Ask the server now, if somebody is looking. */
  refresh(): void {
    if (this._visible && !document.hidden && !this.isDisposed) {
      void this._poll.refresh();
    }
  }

  /** Ask again for everything, also for what seldom changes. */
  reload(): void {
    this._asked.clear();
    this.refresh();
  }

  toggle(key: string): void {
    this._set({ opened: flipped(this._state.opened, key) });
    this.refresh();
  }

  /** Choose a run to be compared, or no longer. */
  select(runId: string): void {
    this._set({ selected: flipped(this._state.selected, runId) });
  }

  clearSelection(): void {
    this._set({ selected: new Set() });
  }

  setParameter(name: string, value: string): void {
    const { parameters } = this._state;
    this._set({
      parameters: value === '' ? omitting(parameters, name) : { ...parameters, [name]: value }
    });
  }

  dismiss(key: string): void {
    this._set({ problems: omitting(this._state.problems, key) });
  }

  setSweepOption(name: string, value: string): void {
    this._set({ sweepOptions: { ...this._state.sweepOptions, [name]: value } });
  }

  /** Show what has just become known. */
  take(change: (state: PanelState) => Partial<PanelState>): void {
    this._set(change(this._state));
  }

  /** Do something once at a time, and keep what went wrong under its key. */
  async act(key: string, work: (api: Api, path: string) => Promise<unknown>): Promise<void> {
    if (this._state.busy.has(key)) {
      return;
    }
    const { busy, problems } = this._state;
    this._set({ busy: including(busy, key), problems: omitting(problems, key) });
    try {
      await work(this._api, this._state.place.path);
    } catch (reason) {
      this._set({ problems: { ...this._state.problems, [key]: problemOf(reason) } });
    } finally {
      this._set({ busy: excluding(this._state.busy, key) });
      this.refresh();
    }
  }

  private async _load(): Promise<void> {
    const turn = ++this._turn;
    const isStale = (): boolean => turn !== this._turn || this.isDisposed;
    const { path } = this._state.place;
    const project = await this._findProject(path);
    if (isStale()) {
      return;
    }
    if (project.problem) {
      this._fail(project.problem);
    } else {
      await this._loadLists(path, project.value, isStale);
      await this._loadOpened(path, isStale);
    }
    if (!this.isDisposed) {
      const interval = isLively(this._state) ? LIVELY_MS : CALM_MS;
      this._poll.frequency = { ...this._poll.frequency, interval };
    }
  }

  /** Find the project, also around a notebook that cannot be run; why it cannot is kept. */
  private async _findProject(path: string): Promise<Outcome<ProjectAnswer>> {
    let project = await settled(this._api.project(path));
    if (project.problem?.code === 'invalid-notebook') {
      // JupyterLab may be half-way through saving it.
      await new Promise(resolve => setTimeout(resolve, SAVING_MS));
      project = await settled(this._api.project(path));
    }
    const problems = omitting(this._state.problems, keys.notebook);
    if (!project.problem || this._state.place.notebook !== path) {
      this._set({ problems });
      return project;
    }
    const around = await settled(this._api.project(folderOf(path)));
    this._set({
      problems: around.problem ? problems : { ...problems, [keys.notebook]: project.problem }
    });
    return around;
  }

  /** Without a project there is nothing to show; of any other failure what was known stays. */
  private _fail(problem: Problem): void {
    const problems = { ...this._state.problems, [keys.project]: problem };
    const known = problem.code === 'no-project' ? NOTHING : {};
    this._set({ ...known, loaded: true, problems });
  }

  private async _loadLists(
    path: string,
    project: ProjectAnswer,
    isStale: () => boolean
  ): Promise<void> {
    const [sweeps, runs, models, deployments] = await Promise.all([
      settled(this._api.sweeps(path)),
      settled(this._api.runs(path)),
      settled(this._api.models(path)),
      settled(this._api.deployments(path))
    ]);
    if (isStale()) {
      return;
    }
    let problems = omitting(this._state.problems, keys.project);
    for (const [name, { problem }] of Object.entries({ runs, models, deployments })) {
      const key = keys.section(name as SectionName);
      problems = problem ? { ...problems, [key]: problem } : omitting(problems, key);
    }
    if (sweeps.problem && !runs.problem) {
      problems = { ...problems, [keys.section('runs')]: sweeps.problem };
    }
    if (project.path !== this._state.project?.path) {
      this._asked.clear();
      this._set({ ...NOTHING, opened: new Set([...this._state.opened].filter(keys.isLasting)) });
    }
    this._set({
      loaded: true,
      project,
      runs: runs.value?.items ?? this._state.runs,
      sweeps: sweeps.value?.items ?? this._state.sweeps,
      models: models.value?.items ?? this._state.models,
      deployments: deployments.value?.items ?? this._state.deployments,
      problems
    });
  }

  /** Ask about what is unfolded or unfinished. */
  private async _loadOpened(path: string, isStale: () => boolean): Promise<void> {
    const due = isStale() ? [] : questionsOf(this._state).filter(one => this._isDue(one));
    await Promise.all(
      due.map(async ({ key, id, ask }) => {
        this._asked.set(id, Date.now());
        const { value: change, problem } = await settled(ask(this._api, path));
        if (isStale()) {
          this._asked.delete(id);
        } else if (problem) {
          this._asked.delete(id);
          this._set({ problems: { ...this._state.problems, [key]: problem } });
        } else {
          this._set({
            ...change(this._state),
            problems: omitting(this._state.problems, key)
          });
        }
      })
    );
  }

  private _isDue({ id, everyMs }: Question): boolean {
    return Date.now() - (this._asked.get(id) ?? -Infinity) >= everyMs;
  }

  private _set(change: Partial<PanelState>): void {
    if (this.isDisposed) {
      return;
    }
    this._state = { ...this._state, ...change, now: Date.now() };
    this._changed.emit(this._state);
  }

  private readonly _onVisibilityChange = (): void => {
    this.refresh();
  };

  private readonly _poll: Poll;
  private readonly _changed = new Signal<this, PanelState>(this);
  private _state = initialState(Date.now());
  private _visible = false;
  /** Counts looks: only the latest may change what is shown. */
  private _turn = 0;
  /** When a question was last asked, by its id. */
  private readonly _asked = new Map<string, number>();
}

/** What is known of a project, emptied. */
const NOTHING = {
  project: null,
  runs: [],
  sweeps: [],
  check: null,
  selected: new Set<string>(),
  models: [],
  deployments: [],
  details: {},
  logs: {},
  reports: {},
  traces: {}
};
