import type { ModelItem } from './documents';

/** What a person can do in the panel. */
export interface Actions {
  readonly refresh: () => void;
  readonly toggle: (key: string) => void;
  readonly dismiss: (key: string) => void;
  readonly setParameter: (name: string, value: string) => void;
  readonly setSweepOption: (name: string, value: string) => void;
  /** Run the open notebook (`null`) or a pipeline. */
  readonly run: (pipeline: string | null) => void;
  readonly rerun: (runId: string) => void;
  /** Start a sweep over the open notebook's parameters. */
  readonly sweep: () => void;
  /** Cancel a run or a sweep. */
  readonly cancel: (runId: string) => void;
  /** Choose a run to be compared, or no longer. */
  readonly select: (runId: string) => void;
  readonly clearSelection: () => void;
  /** Show the chosen runs side by side. */
  readonly compare: () => void;
  /** Show what has changed in the saved notebooks since a run. */
  readonly showChanges: (runId: string) => void;
  /** Show a file that a run, or an earlier attempt of it, left; or save it. */
  readonly openArtifact: (runId: string, name: string, attempt: number | null) => void;
  readonly check: () => void;
  readonly fix: () => void;
  readonly deploy: (item: ModelItem) => void;
  readonly undeploy: (endpoint: string) => void;
  readonly init: (name: string) => void;
  readonly copy: (text: string) => void;
  /** Show a cell of a notebook of the project, by its id or else by its position from 1. */
  readonly showCell: (notebook: string, cellId: string | null, cell: number | null) => void;
}
