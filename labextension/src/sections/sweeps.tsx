import { caretDownIcon, caretRightIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { duration, elapsed, figure, literal } from '../format';
import { Mark, TONES } from '../icons';
import type { Dimension, SweepRecord, Trial } from '../records';
import { isUnfinished, keys } from '../state';
import { Button, Commit, CopyButton, Fact, Moment, ProblemNote, Progress, Selector } from './parts';
import { CancelButton, Failure, type Props, RunDetails } from './run';

/** How many trials there are, best first, before the others are folded away. */
const FEW = 6;

/** A sweep: how far it is, its best trial, and its trials when unfolded. */
export function SweepRow(props: Props & { readonly sweep: SweepRecord }): React.JSX.Element {
  const { sweep, state, actions } = props;
  const id = sweep.sweep_id;
  const key = keys.sweepOf(id);
  const isOpen = state.opened.has(key);
  const seconds = elapsed(sweep.created_at, sweep.finished_at, state.now);
  const done = sweep.trials.filter(({ status }) => !isUnfinished(status)).length;
  const Caret = isOpen ? caretDownIcon.react : caretRightIcon.react;
  return (
    <li className="jp-nbmlops-row" data-testid={`sweep-${id}`} data-status={sweep.status}>
      <button
        type="button"
        className="jp-nbmlops-rowHead"
        aria-expanded={isOpen}
        aria-label={`Sweep ${id} of ${sweep.pipeline}: ${sweep.status}`}
        onClick={() => {
          actions.toggle(key);
        }}
      >
        <Caret tag="span" className="jp-nbmlops-caret" />
        <Mark tone={TONES[sweep.status]} />
        <span className="jp-nbmlops-rowName">{sweep.pipeline}</span>
        <span className="jp-nbmlops-status">{sweep.status}</span>
        <span className="jp-nbmlops-rowEnd">{seconds === null ? '' : duration(seconds)}</span>
      </button>
      <div className="jp-nbmlops-rowBody">
        {isUnfinished(sweep.status) && (
          <div className="jp-nbmlops-live">
            <Progress
              label={`Trials of sweep ${id}`}
              done={done}
              total={sweep.trials_total}
              unit="trials"
            />
            <div className="jp-nbmlops-liveText" role="status">
              {done} of {sweep.trials_total} trials done
            </div>
          </div>
        )}
        {sweep.cause && sweep.status !== 'cancelled' && (
          <Failure cause={sweep.cause} isBrief={!isOpen} actions={actions} />
        )}
        <Best sweep={sweep} />
        <div className="jp-nbmlops-byline">
          <span className="jp-nbmlops-pill">sweep</span>
          <Commit commit={sweep.commit} />
          <Moment time={sweep.created_at} now={state.now} />
          {!isUnfinished(sweep.status) && (
            <span>
              {done} of {sweep.trials_total} trials
            </span>
          )}
          {isUnfinished(sweep.status) && <CancelButton id={id} state={state} actions={actions} />}
        </div>
        <ProblemNote
          problem={state.problems[keys.cancelOf(id)]}
          onDismiss={() => {
            actions.dismiss(keys.cancelOf(id));
          }}
        />
        {isOpen && <SweepDetails sweep={sweep} state={state} actions={actions} />}
      </div>
    </li>
  );
}

/** The best trial so far: its value, and the parameters that gave it. */
function Best({ sweep }: { readonly sweep: SweepRecord }): React.JSX.Element | null {
  const trial = sweep.trials.find(({ number }) => number === sweep.best);
  if (!trial) {
    return null;
  }
  return (
    <div className="jp-nbmlops-best" data-testid={`best-${sweep.sweep_id}`}>
      <span className="jp-nbmlops-quiet">best {sweep.metric}</span>{' '}
      <strong title={String(trial.value)}>{figure(trial.value)}</strong> <code>{given(trial)}</code>
    </div>
  );
}

function SweepDetails(props: Props & { readonly sweep: SweepRecord }): React.JSX.Element {
  const { sweep, state, actions } = props;
  const trials = ranked(sweep);
  const key = keys.trialsOf(sweep.sweep_id);
  const showsAll = state.opened.has(key);
  const hidden = showsAll ? 0 : Math.max(0, trials.length - FEW);
  return (
    <div className="jp-nbmlops-details">
      <dl className="jp-nbmlops-facts">
        <Fact name="Sweep">
          <code>{sweep.sweep_id}</code>
          <CopyButton label="Copy the sweep's id" text={sweep.sweep_id} copy={actions.copy} />
        </Fact>
        <Fact name="Search">
          {sweep.search}, {sweep.direction} {sweep.metric ?? 'a metric'}, {sweep.parallel} at a time
        </Fact>
        {sweep.space.map(dimension => (
          <Fact key={dimension.name} name={dimension.name}>
            <code>{spanOf(dimension)}</code>
          </Fact>
        ))}
        {Object.entries(sweep.fixed).map(([name, value]) => (
          <Fact key={name} name={name}>
            <code>{literal(value)}</code>
          </Fact>
        ))}
      </dl>
      <ul className="jp-nbmlops-trials" aria-label={`Trials of ${sweep.sweep_id}, best first`}>
        {trials.slice(0, trials.length - hidden).map(trial => (
          <TrialRow
            key={trial.number}
            trial={trial}
            isBest={trial.number === sweep.best}
            state={state}
            actions={actions}
          />
        ))}
      </ul>
      {(hidden > 0 || showsAll) && (
        <Button
          label={showsAll ? 'Show fewer' : `${hidden} more trials`}
          icon={showsAll ? caretDownIcon : caretRightIcon}
          expanded={showsAll}
          onClick={() => {
            actions.toggle(key);
          }}
        />
      )}
    </div>
  );
}

function TrialRow(
  props: Props & { readonly trial: Trial; readonly isBest: boolean }
): React.JSX.Element {
  const { trial, isBest, state, actions } = props;
  const { run_id: runId } = trial;
  const isOpen = runId !== null && state.opened.has(keys.runOf(runId));
  const details = runId === null ? undefined : state.details[runId];
  return (
    <li data-testid={`trial-${trial.number}`} data-status={trial.status}>
      <div className="jp-nbmlops-rowTop">
        {runId !== null && (
          <Selector runId={runId} selected={state.selected} select={actions.select} />
        )}
        <button
          type="button"
          className="jp-nbmlops-rowHead"
          disabled={runId === null}
          aria-expanded={isOpen}
          aria-label={`Trial ${trial.number}: ${trial.status}${isBest ? ', the best' : ''}`}
          onClick={() => {
            if (runId !== null) {
              actions.toggle(keys.runOf(runId));
            }
          }}
        >
          <Mark tone={TONES[trial.status]} />
          <span className="jp-nbmlops-quiet">{trial.number}</span>
          <code>{given(trial)}</code>
          <span className="jp-nbmlops-rowEnd">
            {isBest && '★ '}
            {trial.value === null ? trial.status : figure(trial.value)}
          </span>
        </button>
      </div>
      {isOpen && (
        <div className="jp-nbmlops-inset">
          <ProblemNote problem={state.problems[keys.runOf(runId)]} />
          {details ? (
            <>
              {details.cause && <Failure cause={details.cause} isBrief={false} actions={actions} />}
              <RunDetails run={details} details={details} state={state} actions={actions} />
            </>
          ) : (
            <p className="jp-nbmlops-quiet">Loading…</p>
          )}
        </div>
      )}
    </li>
  );
}

/** The trials with the best value first, then those that have none, in their order. */
function ranked({ trials, direction }: SweepRecord): readonly Trial[] {
  const sign = direction === 'maximize' ? -1 : 1;
  return [...trials].sort((a, b) => {
    if (a.value === null || b.value === null) {
      return Number(a.value === null) - Number(b.value === null) || a.number - b.number;
    }
    return sign * (a.value - b.value) || a.number - b.number;
  });
}

function given(trial: Trial): string {
  return Object.entries(trial.parameters)
    .map(([name, value]) => `${name}=${typeof value === 'number' ? figure(value) : literal(value)}`)
    .join(' ');
}

/** The values that a parameter may take, as they are typed. */
function spanOf({ kind, choices, low, high, step, log }: Dimension): string {
  if (kind === 'choices') {
    return choices.map(literal).join(', ');
  }
  return `${low}..${high}${step === null ? '' : `:${step}`}${log ? ':log' : ''}`;
}
