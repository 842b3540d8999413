import type { ModelItem } from './documents';

/** What a person can do in the panel. */
export interface Actions {
  readonly refresh: () => void;
  readonly toggle: (key: string) => void;
  readonly dismiss: (key: string) => void;
  readonly setParameter: (name: string, value: string) => void;
  /** Run the open notebook (`null`) or a pipeline. */
  readonly run: (pipeline: string | null) => void;
  readonly cancel: (runId: string) => void;
  readonly deploy: (item: ModelItem) => void;
  readonly undeploy: (endpoint: string) => void;
  readonly init: (name: string) => void;
  readonly copy: (text: string) => void;
  /** Show a cell of a notebook of the project, by its id or else by its position from 1. */
  readonly showCell: (notebook: string, cellId: string | null, cell: number | null) => void;
}
