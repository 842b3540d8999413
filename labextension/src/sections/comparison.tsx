import React from 'react';

import type { Actions } from '../actions';
import { duration, elapsed, literal, shortCommit } from '../format';
import type { CellChange, Comparison, Difference, NotebookDifference, RunRecord } from '../records';
import { DiffText } from './parts';

type ShowCell = Actions['showCell'];

/** What stands for a run's id where the saved notebooks are meant. */
const NOW = 'now';

/** Runs side by side; what differs is marked, and can be shown alone. */
export function ComparisonView(props: {
  readonly comparison: Comparison;
  readonly showCell: ShowCell;
}): React.JSX.Element {
  const { comparison, showCell } = props;
  const [isBrief, setIsBrief] = React.useState(false);
  const { runs } = comparison;
  const [first] = runs;
  if (runs.length === 1 && first) {
    return (
      <>
        <h2>Since {first.run_id}</h2>
        <p className="jp-nbmlops-quiet">
          How the saved notebooks of pipeline {first.pipeline} differ from those that this run was
          made of, at {shortCommit(first.commit)}
          {first.dirty ? ' with uncommitted changes' : ''}.
        </p>
        <Notebooks notebooks={comparison.notebooks} showCell={showCell} />
      </>
    );
  }
  return (
    <>
      <div className="jp-nbmlops-titleRow">
        <h2>{runs.length} runs compared</h2>
        <label className="jp-nbmlops-choice">
          <input
            type="checkbox"
            checked={isBrief}
            onChange={event => {
              setIsBrief(event.target.checked);
            }}
          />
          Only what differs
        </label>
      </div>
      <div className="jp-nbmlops-scroll" tabIndex={0} role="region" aria-label="Runs side by side">
        <table>
          <thead>
            <tr>
              <th scope="col">Run</th>
              {runs.map(run => (
                <th key={run.run_id} scope="col">
                  <code>{run.run_id}</code>
                </th>
              ))}
            </tr>
          </thead>
          <Rows title="About" rows={factsOf(runs)} isBrief={isBrief} count={runs.length} />
          <Rows
            title="Parameters"
            rows={comparison.parameters}
            isBrief={isBrief}
            count={runs.length}
          />
          <Rows title="Metrics" rows={comparison.metrics} isBrief={isBrief} count={runs.length} />
          <Rows title="Data" rows={comparison.data} isBrief={isBrief} count={runs.length} />
          <Rows
            title="Packages that differ"
            rows={comparison.packages}
            isBrief={isBrief}
            count={runs.length}
          />
        </table>
      </div>
      <h3>Notebooks</h3>
      <Notebooks notebooks={comparison.notebooks} showCell={showCell} />
    </>
  );
}

function Rows(props: {
  readonly title: string;
  readonly rows: readonly Difference[];
  readonly isBrief: boolean;
  readonly count: number;
}): React.JSX.Element | null {
  const rows = props.rows.filter(({ differs }) => differs || !props.isBrief);
  if (rows.length === 0) {
    return null;
  }
  return (
    <tbody>
      <tr>
        <th scope="rowgroup" colSpan={props.count + 1} className="jp-nbmlops-group">
          {props.title}
        </th>
      </tr>
      {rows.map(({ name, values, differs }) => (
        <tr key={name} data-differs={differs}>
          <th scope="row">
            <span className="jp-nbmlops-differs" title={differs ? 'differs' : undefined}>
              {differs ? '≠' : ''}
            </span>{' '}
            {name}
          </th>
          {values.map((value, index) => (
            <td key={index} title={value === null ? undefined : literal(value)}>
              {shortValue(value)}
            </td>
          ))}
        </tr>
      ))}
    </tbody>
  );
}

function Notebooks(props: {
  readonly notebooks: readonly NotebookDifference[];
  readonly showCell: ShowCell;
}): React.JSX.Element {
  const changed = props.notebooks.filter(({ changes }) => changes.length > 0);
  if (changed.length === 0) {
    return <p className="jp-nbmlops-empty">No cell of a notebook differs.</p>;
  }
  return (
    <>
      {changed.map(({ step, notebook, run_id: runId, changes }) => (
        <section
          key={`${step}/${runId}`}
          className="jp-nbmlops-notebookDiff"
          aria-label={`Changes of ${notebook}`}
        >
          <h4>
            {notebook}{' '}
            <span className="jp-nbmlops-quiet">
              {runId === NOW ? 'as it is saved now' : `in ${runId}`}, {counted(changes)}
            </span>
          </h4>
          {changes.map((change, index) => (
            <Change key={index} change={change} notebook={notebook} showCell={props.showCell} />
          ))}
        </section>
      ))}
    </>
  );
}

function Change(props: {
  readonly change: CellChange;
  readonly notebook: string;
  readonly showCell: ShowCell;
}): React.JSX.Element {
  const { change, notebook, showCell } = props;
  const name = `Cell ${change.cell}`;
  return (
    <div className="jp-nbmlops-change" data-kind={change.kind}>
      <div className="jp-nbmlops-byline">
        {change.kind === 'removed' ? (
          <span>{name}</span>
        ) : (
          <button
            type="button"
            className="jp-nbmlops-link"
            title="Show this cell as it is now"
            onClick={() => {
              showCell(notebook, change.cell_id, change.cell);
            }}
          >
            {name}
          </button>
        )}
        <span className="jp-nbmlops-pill">{change.kind}</span>
      </div>
      <DiffText label={`${name}, ${change.kind}`} diff={change.diff} />
    </div>
  );
}

function counted(changes: readonly CellChange[]): string {
  return (['changed', 'added', 'removed'] as const)
    .map(kind => ({ kind, count: changes.filter(change => change.kind === kind).length }))
    .filter(({ count }) => count > 0)
    .map(({ kind, count }) => `${count} ${kind}`)
    .join(', ');
}

/** What is known of the runs themselves, as rows. */
function factsOf(runs: readonly RunRecord[]): readonly Difference[] {
  const facts: readonly (readonly [string, (run: RunRecord) => string])[] = [
    ['pipeline', run => run.pipeline],
    ['status', run => run.status],
    ['commit', run => `${shortCommit(run.commit)}${run.dirty ? ' + changes' : ''}`],
    ['started', run => new Date(run.started_at ?? run.created_at).toLocaleString()],
    ['took', run => tookOf(run)],
    ['environment', run => run.environment_id],
    ['model', run => run.model_versions.join(', ')]
  ];
  return facts
    .map(([name, of]) => {
      const values = runs.map(of);
      // Of two runs the times always differ; that tells nothing.
      const isTime = name === 'started' || name === 'took';
      return { name, values, differs: !isTime && new Set(values).size > 1 };
    })
    .filter(({ values }) => values.some(value => value !== ''));
}

function tookOf({ started_at: begin, finished_at: end }: RunRecord): string {
  const seconds = end === null ? null : elapsed(begin, end, 0);
  return seconds === null ? '' : duration(seconds);
}

/** A value as a cell of a table: figures rounded, of digests the beginning. */
function shortValue(value: unknown): string {
  if (value === null) {
    return '–';
  }
  if (typeof value === 'number') {
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  }
  const text = literal(value);
  return /^[0-9a-f]{40,}$/.test(text) ? text.slice(0, 12) : text;
}
