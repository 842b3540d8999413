import { caretDownIcon, caretRightIcon, stopIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import type { RunSummary } from '../documents';
import { byteSize, duration, elapsed, literal, withoutEscapes } from '../format';
import { Mark, type Tone } from '../icons';
import type { Cause, RunRecord, Status, StepRecord } from '../records';
import { isUnfinished, keys, type PanelState } from '../state';
import { Button, Commit, CopyButton, Fact, Metrics, Moment, ProblemNote, Progress } from './parts';
import { TraceButton, TraceView } from './trace';

interface Props {
  readonly state: PanelState;
  readonly actions: Actions;
}

const TONES: Readonly<Record<Status, Tone>> = {
  pending: 'active',
  running: 'active',
  succeeded: 'good',
  failed: 'bad',
  cancelled: 'quiet',
  lost: 'warning'
};

/** How many runs there are before the others are folded away. */
const FEW = 5;

/** The runs, newest first. */
export function Runs({ state, actions }: Props): React.JSX.Element {
  const showsAll = state.opened.has(keys.allRuns);
  const shown = state.runs.filter(
    ({ status }, index) => showsAll || index < FEW || isUnfinished(status)
  );
  return (
    <>
      <ProblemNote problem={state.problems[keys.section('runs')]} />
      {state.runs.length === 0 && (
        <p className="jp-nbmlops-empty">
          No runs yet. Press Run above, or type <code>%mlops train</code> in a cell.
        </p>
      )}
      <ul className="jp-nbmlops-list">
        {shown.map(run => (
          <RunRow key={run.run_id} run={run} state={state} actions={actions} />
        ))}
      </ul>
      {(showsAll || shown.length < state.runs.length) && (
        <Button
          label={showsAll ? 'Show fewer' : `${state.runs.length - shown.length} earlier`}
          icon={showsAll ? caretDownIcon : caretRightIcon}
          expanded={showsAll}
          onClick={() => {
            actions.toggle(keys.allRuns);
          }}
        />
      )}
    </>
  );
}

function RunRow(props: Props & { readonly run: RunSummary }): React.JSX.Element {
  const { run, state, actions } = props;
  const isOpen = state.opened.has(keys.runOf(run.run_id));
  const details = state.details[run.run_id];
  const seconds = elapsed(run.started_at, run.finished_at, state.now);
  const Caret = isOpen ? caretDownIcon.react : caretRightIcon.react;
  return (
    <li className="jp-nbmlops-row" data-testid={`run-${run.run_id}`} data-status={run.status}>
      <button
        type="button"
        className="jp-nbmlops-rowHead"
        aria-expanded={isOpen}
        aria-label={`Run ${run.run_id} of ${run.pipeline}: ${run.status}`}
        onClick={() => {
          actions.toggle(keys.runOf(run.run_id));
        }}
      >
        <Caret tag="span" className="jp-nbmlops-caret" />
        <Mark tone={TONES[run.status]} />
        <span className="jp-nbmlops-rowName">{run.pipeline}</span>
        <span className="jp-nbmlops-status">{run.status}</span>
        <span className="jp-nbmlops-rowEnd">{seconds === null ? '' : duration(seconds)}</span>
      </button>
      <div className="jp-nbmlops-rowBody">
        {isUnfinished(run.status) && <Live run={run} details={details} />}
        {run.cause && run.status !== 'cancelled' && (
          <Failure cause={run.cause} isBrief={!isOpen} actions={actions} />
        )}
        {!isOpen && <Metrics metrics={run.metrics} most={3} />}
        <div className="jp-nbmlops-byline">
          <Commit commit={run.commit} />
          <Moment time={run.created_at} now={state.now} />
          {run.model_versions.map(version => (
            <span key={version} className="jp-nbmlops-pill">
              {version}
            </span>
          ))}
        </div>
        {isOpen && <RunDetails run={run} details={details} state={state} actions={actions} />}
      </div>
    </li>
  );
}

/** How far a run is: the step at work, its cells, and a bar over the cells of all steps. */
function Live(props: {
  readonly run: RunSummary;
  readonly details: RunRecord | undefined;
}): React.JSX.Element {
  const steps = props.details?.steps ?? [];
  const done = steps.reduce((sum, step) => sum + step.cells_done, 0);
  const total = steps.reduce((sum, step) => sum + step.cells_total, 0);
  const current = steps.find(step => step.status === 'running');
  return (
    <div className="jp-nbmlops-live">
      <Progress label={`Cells of run ${props.run.run_id}`} done={done} total={total} />
      <div className="jp-nbmlops-liveText" role="status">
        {current
          ? `${current.name}: cell ${Math.min(current.cells_done + 1, current.cells_total)} of ${current.cells_total}`
          : 'getting ready'}
        {steps.length > 1 && current && (
          <span className="jp-nbmlops-quiet">
            step {steps.indexOf(current) + 1} of {steps.length}
          </span>
        )}
      </div>
    </div>
  );
}

function Failure(props: {
  readonly cause: Cause;
  readonly isBrief: boolean;
  readonly actions: Actions;
}): React.JSX.Element {
  const { cause, actions } = props;
  const { notebook, cell } = cause;
  return (
    <div className="jp-nbmlops-cause">
      {notebook !== null && cell !== null && (
        <button
          type="button"
          className="jp-nbmlops-link"
          onClick={() => {
            actions.showCell(notebook, cause.cell_id, cell);
          }}
          title="Show this cell"
        >
          Cell {cell} of {notebook}
        </button>
      )}
      <div className={`jp-nbmlops-causeMessage ${props.isBrief ? 'jp-nbmlops-mod-brief' : ''}`}>
        {withoutEscapes(cause.message)}
      </div>
      {cause.hint && <div className="jp-nbmlops-hint">{cause.hint}</div>}
    </div>
  );
}

function RunDetails(
  props: Props & { readonly run: RunSummary; readonly details: RunRecord | undefined }
): React.JSX.Element {
  const { run, details, state, actions } = props;
  const id = run.run_id;
  const logs = keys.logsOf(id);
  const parameters = Object.entries(run.parameters);
  return (
    <div className="jp-nbmlops-details">
      <div className="jp-nbmlops-buttons">
        <Button
          label="Logs"
          icon={state.opened.has(logs) ? caretDownIcon : caretRightIcon}
          expanded={state.opened.has(logs)}
          onClick={() => {
            actions.toggle(logs);
          }}
          testId={`logs-${id}`}
        />
        <TraceButton reference={`run/${id}`} state={state} actions={actions} />
        {isUnfinished(run.status) && (
          <Button
            label="Cancel"
            icon={stopIcon}
            busy={state.busy.has(keys.cancelOf(id))}
            onClick={() => {
              actions.cancel(id);
            }}
            testId={`cancel-${id}`}
          />
        )}
      </div>
      <ProblemNote
        problem={state.problems[keys.cancelOf(id)]}
        onDismiss={() => {
          actions.dismiss(keys.cancelOf(id));
        }}
      />
      <ProblemNote problem={state.problems[keys.runOf(id)]} />
      {state.opened.has(logs) && (
        <>
          <ProblemNote problem={state.problems[logs]} />
          <Logs runId={id} lines={state.logs[id]} />
        </>
      )}
      <TraceView reference={`run/${id}`} state={state} actions={actions} />
      <Metrics metrics={run.metrics} most={Infinity} />
      {details && <Steps steps={details.steps} now={state.now} />}
      <dl className="jp-nbmlops-facts">
        <Fact name="Run">
          <code>{id}</code>
          <CopyButton label="Copy the run's id" text={id} copy={actions.copy} />
        </Fact>
        {parameters.map(([name, value]) => (
          <Fact key={name} name={name}>
            <code>{literal(value)}</code>
          </Fact>
        ))}
        {run.artifacts.length > 0 && (
          <Fact name="Artifacts">
            <ul>
              {run.artifacts.map(({ name, bytes, digest }) => (
                <li key={name} title={`SHA-256 ${digest}`}>
                  {name} <span className="jp-nbmlops-quiet">{byteSize(bytes)}</span>
                </li>
              ))}
            </ul>
          </Fact>
        )}
        <Fact name="Snapshot">{run.dirty ? 'with uncommitted changes' : 'as committed'}</Fact>
        {run.attempts > 1 && <Fact name="Attempts">{run.attempts}</Fact>}
        <Fact name="By">
          {run.author}, {run.launcher}
        </Fact>
      </dl>
    </div>
  );
}

function Steps(props: {
  readonly steps: readonly StepRecord[];
  readonly now: number;
}): React.JSX.Element {
  return (
    <ol className="jp-nbmlops-steps" aria-label="Steps">
      {props.steps.map(step => {
        const seconds = elapsed(step.started_at, step.finished_at, props.now);
        return (
          <li key={step.name} title={step.notebook} data-status={step.status}>
            <Mark tone={step.status === 'pending' ? 'quiet' : TONES[step.status]} />
            <span className="jp-nbmlops-rowName">{step.name}</span>
            <span className="jp-nbmlops-status">{step.cached ? 'cached' : step.status}</span>
            <span className="jp-nbmlops-rowEnd">
              {step.cells_done}/{step.cells_total} cells
              {seconds === null ? '' : ` · ${duration(seconds)}`}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

/** The end of a log; it follows new lines unless one has scrolled up. */
function Logs(props: {
  readonly runId: string;
  readonly lines: readonly string[] | undefined;
}): React.JSX.Element {
  const box = React.useRef<HTMLPreElement>(null);
  const follows = React.useRef(true);
  React.useEffect(() => {
    if (box.current && follows.current) {
      box.current.scrollTop = box.current.scrollHeight;
    }
  }, [props.lines]);
  const { lines } = props;
  return (
    <pre
      ref={box}
      className="jp-nbmlops-logs"
      tabIndex={0}
      aria-label={`Log of run ${props.runId}`}
      onScroll={event => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
        follows.current = scrollHeight - scrollTop - clientHeight < 24;
      }}
    >
      {lines === undefined && 'Loading…'}
      {lines?.length === 0 && 'Nothing was printed yet.'}
      {lines?.map(withoutEscapes).join('\n')}
    </pre>
  );
}
