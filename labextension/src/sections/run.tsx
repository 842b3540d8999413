/** One run, unfolded: its steps, what it left, its log. */
import { caretDownIcon, caretRightIcon, refreshIcon, stopIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import type { RunSummary } from '../documents';
import { byteSize, duration, elapsed, literal, withoutEscapes } from '../format';
import { Mark, reportIcon, type Tone, TONES } from '../icons';
import type { ArtifactRecord, Cause, EarlierAttempt, RunRecord, StepRecord } from '../records';
import { isUnfinished, keys, type PanelState } from '../state';
import {
  Button,
  CopyButton,
  Fact,
  IconButton,
  Metrics,
  ProblemNote,
  Progress,
  Prose
} from './parts';
import { TraceButton, TraceView } from './trace';

export interface Props {
  readonly state: PanelState;
  readonly actions: Actions;
}

/** How far a run is: the step at work, its cells, and a bar over the cells of all steps. */
export function Live(props: {
  readonly run: RunSummary;
  readonly details: RunRecord | undefined;
}): React.JSX.Element {
  const steps = props.details?.steps ?? [];
  const done = steps.reduce((sum, step) => sum + step.cells_done, 0);
  const total = steps.reduce((sum, step) => sum + step.cells_total, 0);
  const current = steps.find(step => step.status === 'running');
  return (
    <div className="jp-nbmlops-live">
      <Progress label={`Cells of run ${props.run.run_id}`} done={done} total={total} unit="cells" />
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

export function Failure(props: {
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
      {cause.hint && (
        <div className="jp-nbmlops-hint">
          <Prose text={cause.hint} />
        </div>
      )}
    </div>
  );
}

/** Ends a run or a sweep that is under way. */
export function CancelButton({
  id,
  state,
  actions
}: Props & { readonly id: string }): React.JSX.Element {
  return (
    <Button
      label="Cancel"
      icon={stopIcon}
      busy={state.busy.has(keys.cancelOf(id))}
      onClick={() => {
        actions.cancel(id);
      }}
      ariaLabel={`Cancel ${id}`}
      testId={`cancel-${id}`}
    />
  );
}

export function RunDetails(
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
        {isUnfinished(run.status) ? (
          <CancelButton id={id} state={state} actions={actions} />
        ) : (
          <Button
            label="Rerun"
            icon={refreshIcon}
            busy={state.busy.has(keys.rerunOf(id))}
            title={
              run.status === 'succeeded'
                ? 'Run all of it again, as a new run of the same snapshot'
                : 'A new attempt of the same snapshot; steps that succeeded are taken over'
            }
            onClick={() => {
              actions.rerun(id);
            }}
            ariaLabel={`Rerun ${id}`}
            testId={`rerun-${id}`}
          />
        )}
      </div>
      {[keys.cancelOf(id), keys.rerunOf(id), keys.artifactsOf(id)].map(key => (
        <ProblemNote
          key={key}
          problem={state.problems[key]}
          onDismiss={() => {
            actions.dismiss(key);
          }}
        />
      ))}
      <ProblemNote problem={state.problems[keys.runOf(id)]} />
      {state.opened.has(logs) && (
        <>
          <ProblemNote problem={state.problems[logs]} />
          <Logs runId={id} lines={state.logs[id]} />
        </>
      )}
      <TraceView reference={`run/${id}`} state={state} actions={actions} />
      <Metrics metrics={run.metrics} most={Infinity} />
      {details && <Steps run={details} state={state} actions={actions} />}
      {run.earlier.map(attempt => (
        <Earlier key={attempt.attempt} runId={id} attempt={attempt} actions={actions} />
      ))}
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
              {run.artifacts.map(artifact => (
                <li key={artifact.name}>
                  <Artifact runId={id} artifact={artifact} attempt={null} actions={actions} />{' '}
                  <span className="jp-nbmlops-quiet">{byteSize(artifact.bytes)}</span>
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

/** A file that a run left, as a link that shows or saves it. */
function Artifact(props: {
  readonly runId: string;
  readonly artifact: ArtifactRecord;
  readonly attempt: number | null;
  readonly actions: Actions;
}): React.JSX.Element {
  const { runId, artifact, attempt, actions } = props;
  return (
    <button
      type="button"
      className="jp-nbmlops-link"
      title={`Open ${artifact.name}, SHA-256 ${artifact.digest}`}
      onClick={() => {
        actions.openArtifact(runId, artifact.name, attempt);
      }}
    >
      {artifact.name}
    </button>
  );
}

function Steps(props: Props & { readonly run: RunRecord }): React.JSX.Element {
  const { run, state, actions } = props;
  const names = new Set(run.artifacts.map(({ name }) => name));
  return (
    <ol className="jp-nbmlops-steps" aria-label="Steps">
      {run.steps.map(step => {
        const report = `${step.name}.html`;
        return (
          <li
            key={step.name}
            title={step.notebook}
            data-status={step.status}
            data-cached={step.cached}
          >
            <Mark tone={toneOf(step)} />
            <span className="jp-nbmlops-rowName">{step.name}</span>
            <span
              className="jp-nbmlops-status"
              title={step.cached_from === null ? undefined : `taken from ${step.cached_from}`}
            >
              {step.cached ? 'cached' : step.status}
            </span>
            <span className="jp-nbmlops-rowEnd">{stepTold(step, state.now)}</span>
            {names.has(report) && (
              <IconButton
                label={`Open the executed notebook of ${step.name}`}
                icon={reportIcon}
                disabled={state.busy.has(keys.artifactsOf(run.run_id))}
                onClick={() => {
                  actions.openArtifact(run.run_id, report, null);
                }}
                testId={`report-${run.run_id}-${step.name}`}
              />
            )}
            {step.cached_from !== null && step.cached_from !== run.run_id && (
              <span className="jp-nbmlops-origin">from {step.cached_from}</span>
            )}
          </li>
        );
      })}
    </ol>
  );
}

function toneOf(step: StepRecord): Tone {
  if (step.cached) {
    return 'cached';
  }
  return step.status === 'pending' ? 'quiet' : TONES[step.status];
}

function stepTold(step: StepRecord, now: number): string {
  if (step.cached) {
    return '';
  }
  const seconds = elapsed(step.started_at, step.finished_at, now);
  return step.status === 'succeeded' && seconds !== null
    ? duration(seconds)
    : `${step.cells_done}/${step.cells_total} cells`;
}

/** An attempt that did not succeed: why, and what it left. */
function Earlier(props: {
  readonly runId: string;
  readonly attempt: EarlierAttempt;
  readonly actions: Actions;
}): React.JSX.Element {
  const { runId, attempt, actions } = props;
  const kept = attempt.artifacts.filter(({ kind }) => kind === 'report' || kind === 'log');
  return (
    <div className="jp-nbmlops-inset" role="group" aria-label={`Attempt ${attempt.attempt}`}>
      <div className="jp-nbmlops-verdict">
        <Mark tone={TONES[attempt.status]} />
        Attempt {attempt.attempt}: {attempt.status}
      </div>
      {attempt.cause && <Failure cause={attempt.cause} isBrief actions={actions} />}
      {kept.length > 0 && (
        <div className="jp-nbmlops-byline">
          {kept.map(artifact => (
            <Artifact
              key={artifact.name}
              runId={runId}
              artifact={artifact}
              attempt={attempt.attempt}
              actions={actions}
            />
          ))}
        </div>
      )}
    </div>
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
