import { caretDownIcon, caretRightIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { RunSummary } from '../documents';
import { duration, elapsed } from '../format';
import { Mark, TONES } from '../icons';
import type { SweepRecord } from '../records';
import { isUnfinished, keys, type PanelState } from '../state';
import { Button, Commit, Metrics, Moment, ProblemNote, Selector } from './parts';
import { Failure, Live, type Props, RunDetails } from './run';
import { SweepRow } from './sweeps';

/** How many runs there are before the others are folded away. */
const FEW = 5;

type Item = RunSummary | SweepRecord;

/** The runs, newest first; those of one sweep as one. */
export function Runs({ state, actions }: Props): React.JSX.Element {
  const showsAll = state.opened.has(keys.allRuns);
  const items = itemsOf(state);
  const shown = items.filter(
    ({ status }, index) => showsAll || index < FEW || isUnfinished(status)
  );
  return (
    <>
      <ProblemNote problem={state.problems[keys.section('runs')]} />
      {items.length === 0 && (
        <p className="jp-nbmlops-empty">
          No runs yet. Press Run above, or type <code>%mlops train</code> in a cell.
        </p>
      )}
      <Chosen state={state} actions={actions} />
      <ul className="jp-nbmlops-list">
        {shown.map(item =>
          'sweep_id' in item ? (
            <SweepRow key={item.sweep_id} sweep={item} state={state} actions={actions} />
          ) : (
            <RunRow key={item.run_id} run={item} state={state} actions={actions} />
          )
        )}
      </ul>
      {(showsAll || shown.length < items.length) && (
        <Button
          label={showsAll ? 'Show fewer' : `${items.length - shown.length} earlier`}
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

/** Runs and sweeps in one list, newest first; a trial of a listed sweep stands under it. */
export function itemsOf({ runs, sweeps }: Pick<PanelState, 'runs' | 'sweeps'>): readonly Item[] {
  const listed = new Set(sweeps.map(sweep => sweep.sweep_id));
  const alone = runs.filter(run => run.sweep === null || !listed.has(run.sweep));
  // Times of one server, in one form: as texts they are in order.
  return [...sweeps, ...alone].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
}

/** What can be done with the runs that are chosen. */
function Chosen({ state, actions }: Props): React.JSX.Element | null {
  const count = state.selected.size;
  if (count === 0) {
    return null;
  }
  return (
    <div className="jp-nbmlops-chosen" role="group" aria-label="Chosen runs">
      <span role="status">{count === 1 ? '1 chosen; choose another' : `${count} chosen`}</span>
      <Button
        label="Compare"
        primary
        disabled={count < 2}
        title="Show the chosen runs side by side"
        onClick={actions.compare}
        testId="compare"
      />
      <Button label="Clear" onClick={actions.clearSelection} />
    </div>
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
      <div className="jp-nbmlops-rowTop">
        <Selector runId={run.run_id} selected={state.selected} select={actions.select} />
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
      </div>
      <div className="jp-nbmlops-rowBody">
        {isUnfinished(run.status) && <Live run={run} details={details} />}
        {run.cause && run.status !== 'cancelled' && (
          <Failure cause={run.cause} isBrief={!isOpen} actions={actions} />
        )}
        {!isOpen && <Metrics metrics={run.metrics} most={3} />}
        <div className="jp-nbmlops-byline">
          <Commit commit={run.commit} />
          <Moment time={run.created_at} now={state.now} />
          {run.attempts > 1 && <span className="jp-nbmlops-pill">attempt {run.attempts}</span>}
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
