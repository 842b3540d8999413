/** Documents of the HTTP API as lists show them. */
import type { ModelVersion, RunRecord } from './records';

/** A page of a list; `next` is the cursor of the following page. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly next: string | null;
}

/** A run as lists show it. */
export type RunSummary = Omit<RunRecord, 'steps'>;

/** A model version as lists show it. */
export type ModelItem = Pick<
  ModelVersion,
  | 'model'
  | 'version'
  | 'digest'
  | 'run_id'
  | 'commit'
  | 'created_at'
  | 'stage'
  | 'aliases'
  | 'metrics'
>;
