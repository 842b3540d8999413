// Made by scripts/typescript_types.py from src/nbmlops/records and commands.py; do not edit.
// Times are RFC 3339 texts in UTC; numbers that are not finite arrive as null.

/** A rule that a project breaks: where, how grave, and what mends it. */
export interface CheckFinding {
  readonly code: string;
  readonly level: 'advise' | 'block' | 'warn';
  readonly path: string;
  readonly cell: number | null;
  readonly line: number | null;
  readonly message: string;
  readonly fix: string;
  readonly fixable: boolean;
}

/** The document of ``check``; ``fixed`` is what ``--fix`` has mended. */
export interface CheckReport {
  readonly findings: readonly CheckFinding[];
  readonly fixed: readonly CheckFinding[];
  readonly level: 'advise' | 'block' | 'warn';
  readonly notebooks: number;
  readonly files: number;
}

/** The chain from a call to the cell that trained its model; the document of ``trace``. */
export interface Trace {
  readonly call: Readonly<Record<string, unknown>> | null;
  readonly endpoint: Readonly<Record<string, unknown>> | null;
  readonly deployment: Readonly<Record<string, unknown>> | null;
  readonly model_version: Readonly<Record<string, unknown>> | null;
  readonly run: Readonly<Record<string, unknown>> | null;
  readonly snapshot: TracedSnapshot | null;
  readonly data: readonly DataRecord[];
  readonly environment: TracedEnvironment | null;
  readonly complete: boolean;
  readonly missing: readonly string[];
}

/** The packages behind an answer. */
export interface TracedEnvironment {
  readonly id: string;
  readonly packages: Readonly<Record<string, string>>;
}

/** The code behind an answer: the commit, the notebook's blob, the training cell. */
export interface TracedSnapshot {
  readonly commit: string;
  readonly notebook: string | null;
  readonly notebook_blob: string | null;
  readonly cell_id: string | null;
  readonly source: string | null;
  readonly cell: number | null;
  readonly cell_is: 'log_model' | 'tagged' | null;
  readonly dirty: boolean | null;
  readonly base_commit: string | null;
}

/** Why something ended as it did. */
export interface Cause {
  readonly code: string;
  readonly message: string;
  readonly cell: number | null;
  readonly cell_id: string | null;
  readonly notebook: string | null;
  readonly hint: string | null;
}

/** Names a launched job; plain strings, so it survives the process that launched it. */
export interface JobHandle {
  readonly launcher: string;
  readonly name: string;
  readonly index: number | null;
}

/** Where a job, and with it a run or a deployment, stands; the same on every launcher. */
export type Status = 'pending' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'lost';

/** A registered model: its digest is its identity, its number was given by the ledger. */
export interface ModelVersion {
  readonly model: string;
  readonly version: number;
  readonly digest: string;
  readonly run_id: string;
  readonly commit: string;
  readonly created_at: string;
  readonly stage: string | null;
  readonly aliases: readonly string[];
  readonly metrics: Readonly<Record<string, number | null>>;
  readonly format: string;
  readonly files: Readonly<Record<string, ArtifactRecord>>;
  readonly environment_id: string;
  readonly notebook: string;
  readonly notebook_blob: string;
  readonly cell_id: string | null;
  readonly cell: number | null;
  readonly cell_is: 'log_model' | 'tagged';
  readonly snapshot: string;
  readonly run_digest: string;
  readonly data: readonly DataRecord[];
  readonly author: string;
  readonly probe: Probe;
  readonly loader: string | null;
  readonly command: readonly string[];
  readonly image: string | null;
  readonly project_dir: string;
  readonly pushed: boolean | null;
}

/** The answer to one of the four questions; ``yes`` means still as in training. */
export interface Answer {
  readonly answer: 'no' | 'unknown' | 'yes';
  readonly reason: string;
  readonly evidence: Readonly<Record<string, unknown>>;
}

/** At most ``false_alarms`` alarms without a cause in ``windows`` windows. */
export interface Budget {
  readonly false_alarms: number;
  readonly windows: number;
}

/** What else happened when the calls changed. */
export interface Coincidence {
  readonly kind: 'client' | 'data-definition' | 'pipeline' | 'release';
  readonly at: string | null;
  readonly message: string;
}

/** What monitoring found about one column. */
export interface ColumnReport {
  readonly name: string;
  readonly kind: string;
  readonly verdict: 'drift' | 'ok' | 'unknown';
  readonly reason: string;
  readonly effect: Effect | null;
  readonly p_value: number | null;
  readonly missing_share: number | null;
  readonly new_categories: readonly string[];
  readonly distribution: Distribution | null;
}

/** Two distributions over the same bins, for a picture. */
export interface Distribution {
  readonly edges: readonly number[] | null;
  readonly labels: readonly string[] | null;
  readonly reference: readonly number[];
  readonly window: readonly number[];
}

/** A size of difference that does not grow with the number of rows, and its threshold. */
export interface Effect {
  readonly name: string;
  readonly value: number | null;
  readonly threshold: number;
  readonly low: number | null;
  readonly high: number | null;
}

/** Since when calls differ, which features do, what happened then, and who served them. */
export interface Explanation {
  readonly since: string | null;
  readonly suspects: readonly Suspect[];
  readonly coincidences: readonly Coincidence[];
  readonly commit: string | null;
  readonly version: string | null;
}

/** What was found about one column of a slice: the verdict and the size of the difference. */
export interface Judgement {
  readonly verdict: 'drift' | 'ok' | 'unknown';
  readonly effect: number | null;
}

/** A metric of a window beside the test set's; every interval is of 95 %. */
export interface Metric {
  readonly name: string;
  readonly value: number | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly reference: number | null;
  readonly reference_low: number | null;
  readonly reference_high: number | null;
  readonly difference: number | null;
  readonly difference_low: number | null;
  readonly difference_high: number | null;
  readonly rows: number;
  readonly estimated: boolean;
  readonly worse: boolean;
  readonly greater_is_better: boolean;
}

/** The document of ``monitor``. */
export interface MonitorReport {
  readonly verdict: 'alert' | 'ok' | 'unknown';
  readonly model: string;
  readonly window: Window;
  readonly reference: Reference;
  readonly questions: Questions;
  readonly columns: readonly ColumnReport[];
  readonly prediction: ColumnReport | null;
  readonly changed_since: string | null;
  readonly budget: Budget;
  readonly created_at: string;
  readonly version: number | null;
  readonly commit: string | null;
  readonly endpoint: string | null;
  readonly metrics: readonly Metric[];
  readonly history: readonly Slice[];
  readonly explanation: Explanation | null;
  readonly traffic: Traffic | null;
}

/** The four questions of monitoring. */
export interface Questions {
  readonly features: Answer;
  readonly predictions: Answer;
  readonly bounds: Answer;
  readonly performance: Answer;
}

/** The training data that the calls were held against. */
export interface Reference {
  readonly rows: number;
  readonly digest: string;
}

/** A part of the history: the calls from ``since`` up to and without ``until``. */
export interface Slice {
  readonly since: string;
  readonly until: string;
  readonly rows: number;
  readonly verdict: 'alert' | 'ok' | 'unknown';
  readonly columns: Readonly<Record<string, Judgement>>;
  readonly prediction: Judgement | null;
  readonly out_of_bounds: number;
  readonly metrics: readonly Metric[];
  readonly traffic: Traffic | null;
}

/** A feature that changed, and its ``share`` of all change, from 0 to 1. */
export interface Suspect {
  readonly column: string;
  readonly share: number;
  readonly change: 'constant' | 'missing' | 'new-categories' | 'range' | 'shift' | 'type' | 'unit';
  readonly factor: number | null;
  readonly since: string | null;
}

/** Volume, errors and latency of some calls; latencies in milliseconds. */
export interface Traffic {
  readonly calls: number;
  readonly rows: number;
  readonly failed: number | null;
  readonly latency_p50_ms: number | null;
  readonly latency_p99_ms: number | null;
}

/** The calls that were looked at. */
export interface Window {
  readonly since: string | null;
  readonly until: string | null;
  readonly rows: number;
}

/** Bytes that a run left behind, found by their SHA-256; ``name`` never becomes a path. */
export interface ArtifactRecord {
  readonly name: string;
  readonly digest: string;
  readonly bytes: number;
  readonly kind: string;
  readonly media_type: string | null;
}

/** A cell that is not the same in two notebooks; ``diff`` is a unified diff of its source. */
export interface CellChange {
  readonly kind: 'added' | 'changed' | 'removed';
  readonly cell: number;
  readonly cell_id: string | null;
  readonly diff: string;
}

/** Runs side by side; the document of ``compare``. ``runs`` have no steps and artifacts. */
export interface Comparison {
  readonly runs: readonly RunRecord[];
  readonly parameters: readonly Difference[];
  readonly metrics: readonly Difference[];
  readonly data: readonly Difference[];
  readonly packages: readonly Difference[];
  readonly notebooks: readonly NotebookDifference[];
}

/** Data that a run read, by declared name and SHA-256. */
export interface DataRecord {
  readonly name: string;
  readonly digest: string;
}

/** One name with its value in each run, in the order of the runs; ``None`` where it has none. */
export interface Difference {
  readonly name: string;
  readonly values: readonly unknown[];
  readonly differs: boolean;
}

/** An attempt of a run that did not succeed, and what it left. */
export interface EarlierAttempt {
  readonly attempt: number;
  readonly status: Status;
  readonly cause: Cause | null;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  readonly artifacts: readonly ArtifactRecord[];
}

/** The project side of a job: the interpreter that the user's code runs in. */
export interface Environment {
  readonly environment_id: string;
  readonly python: string;
  readonly python_version: string;
  readonly platform: string;
  readonly source: string | null;
  readonly packages: Readonly<Record<string, string>>;
  readonly image: string | null;
  readonly image_digest: string | null;
}

/** What became of a notebook from the first run to another one, or to ``now``. */
export interface NotebookDifference {
  readonly step: string;
  readonly notebook: string;
  readonly run_id: string;
  readonly changes: readonly CellChange[];
}

/** A declared parameter of a notebook: ``type`` is spelled as in Python, ``default`` is JSON. */
export interface Parameter {
  readonly name: string;
  readonly type: string;
  readonly default: unknown;
  readonly help: string | null;
}

/** What was seen of a model when it was logged, over rows of its training data. */
export interface Probe {
  readonly form: 'direct' | 'given' | 'numeric';
  readonly independent: boolean;
  readonly deterministic: boolean;
}

/** A run, from submission to its end; the document of ``train`` and ``run``. */
export interface RunRecord {
  readonly run_id: string;
  readonly pipeline: string;
  readonly status: Status;
  readonly commit: string;
  readonly base_commit: string | null;
  readonly dirty: boolean;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly metrics: Readonly<Record<string, number | null>>;
  readonly environment_id: string;
  readonly launcher: string;
  readonly created_at: string;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  readonly attempts: number;
  readonly steps: readonly StepRecord[];
  readonly artifacts: readonly ArtifactRecord[];
  readonly data: readonly DataRecord[];
  readonly model_versions: readonly string[];
  readonly cause: Cause | null;
  readonly snapshot: string;
  readonly author: string;
  readonly project_dir: string;
  readonly content_key: string;
  readonly handle: JobHandle | null;
  readonly record_digest: string | null;
  readonly earlier: readonly EarlierAttempt[];
  readonly sweep: string | null;
  readonly trial: number | null;
  readonly freed_at: string | null;
  readonly place: string | null;
  readonly elsewhere: boolean;
}

/** The commit that a run starts from, and what it was made of. */
export interface Snapshot {
  readonly id: string;
  readonly commit: string;
  readonly tree: string;
  readonly base_commit: string | null;
  readonly dirty: boolean;
  readonly branch: string | null;
  readonly created_at: string;
}

/** How one notebook of a run fared. */
export interface StepRecord {
  readonly name: string;
  readonly notebook: string;
  readonly status: Status;
  readonly cached: boolean;
  readonly notebook_blob: string;
  readonly cells_done: number;
  readonly cells_total: number;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly after: readonly string[];
  readonly cached_from: string | null;
}

/** A worker of one model version behind an endpoint; the document of ``deploy``. */
export interface DeploymentRecord {
  readonly endpoint: string;
  readonly url: string;
  readonly deployment_id: string;
  readonly model: string;
  readonly version: number;
  readonly commit: string;
  readonly launcher: string;
  readonly status: DeploymentStatus;
  readonly ready: number;
  readonly desired: number;
  readonly token_file: string | null;
  readonly created_at: string;
  readonly stopped_at: string | null;
  readonly author: string;
  readonly handle: JobHandle | null;
  readonly cause: Cause | null;
  readonly monitor: string | null;
  readonly rolled_back_from: number | null;
  readonly image: string | null;
  readonly ephemeral_calls: boolean;
  readonly asleep_since: string | null;
  readonly place: string | null;
  readonly elsewhere: boolean;
}

/** Where a deployment stands. */
export type DeploymentStatus = 'starting' | 'running' | 'failed' | 'stopped';

/** The values that one parameter may take: ``choices``, or a range from ``low`` to ``high``. */
export interface Dimension {
  readonly name: string;
  readonly kind: 'choices' | 'integers' | 'numbers';
  readonly choices: readonly unknown[];
  readonly low: number | null;
  readonly high: number | null;
  readonly step: number | null;
  readonly log: boolean;
}

/** A sweep, from submission to its end; the document of ``sweep``. */
export interface SweepRecord {
  readonly sweep_id: string;
  readonly pipeline: string;
  readonly status: Status;
  readonly search: 'bayes' | 'grid' | 'random';
  readonly metric: string | null;
  readonly direction: 'maximize' | 'minimize';
  readonly space: readonly Dimension[];
  readonly fixed: Readonly<Record<string, unknown>>;
  readonly trials_total: number;
  readonly parallel: number;
  readonly seed: number;
  readonly trials: readonly Trial[];
  readonly best: number | null;
  readonly model_versions: readonly string[];
  readonly commit: string;
  readonly base_commit: string | null;
  readonly dirty: boolean;
  readonly environment_id: string;
  readonly launcher: string;
  readonly created_at: string;
  readonly finished_at: string | null;
  readonly author: string;
  readonly cause: Cause | null;
  readonly force: boolean;
  readonly snapshot: Snapshot;
  readonly environment: Environment;
  readonly handle: JobHandle | null;
  readonly place: string | null;
}

/** One run of a sweep; ``value`` is its metric. Trials count from 1. */
export interface Trial {
  readonly number: number;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly status: Status;
  readonly run_id: string | null;
  readonly value: number | null;
  readonly metrics: Readonly<Record<string, number | null>>;
  readonly started_at: string | null;
  readonly finished_at: string | null;
}

/** The document of ``init``. */
export interface InitAnswer {
  readonly project: string;
  readonly path: string;
  readonly commit: string | null;
  readonly pipelines: readonly string[];
  readonly created: readonly string[];
}

/** What a run of the notebook that one stands in would run. */
export interface NotebookAnswer {
  readonly pipeline: string;
  readonly step: string | null;
  readonly parameters: readonly Parameter[];
}

/** The document of ``project``. */
export interface ProjectAnswer {
  readonly project: string;
  readonly path: string;
  readonly pipelines: readonly string[];
  readonly notebook: NotebookAnswer | null;
}
