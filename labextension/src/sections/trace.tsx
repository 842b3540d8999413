import { caretDownIcon, caretRightIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import { Mark } from '../icons';
import type { Trace, TracedSnapshot } from '../records';
import { keys, type PanelState } from '../state';
import { Button, Commit, CopyButton, Fact, ProblemNote } from './parts';

interface Props {
  readonly reference: string;
  readonly state: PanelState;
  readonly actions: Actions;
}

/** Unfolds where something comes from. */
export function TraceButton({ reference, state, actions }: Props): React.JSX.Element {
  const key = keys.traceOf(reference);
  const isOpen = state.opened.has(key);
  return (
    <Button
      label="Trace"
      icon={isOpen ? caretDownIcon : caretRightIcon}
      expanded={isOpen}
      title="The commit, the notebook's cell and the data behind this"
      ariaLabel={`Trace ${reference}`}
      onClick={() => {
        actions.toggle(key);
      }}
      testId={`trace-${reference}`}
    />
  );
}

/** Where something comes from: the commit, the cell, the data, the environment. */
export function TraceView({ reference, state, actions }: Props): React.JSX.Element | null {
  const key = keys.traceOf(reference);
  if (!state.opened.has(key)) {
    return null;
  }
  const trace = state.traces[reference];
  return (
    <div className="jp-nbmlops-inset" role="region" aria-label={`Trace of ${reference}`}>
      <ProblemNote problem={state.problems[key]} />
      {!trace && !state.problems[key] && <p className="jp-nbmlops-quiet">Tracing…</p>}
      {trace && <Chain trace={trace} actions={actions} />}
    </div>
  );
}

function Chain(props: { readonly trace: Trace; readonly actions: Actions }): React.JSX.Element {
  const { trace, actions } = props;
  const { snapshot, environment } = trace;
  return (
    <>
      <div className="jp-nbmlops-verdict">
        <Mark tone={trace.complete ? 'good' : 'warning'} />
        {trace.complete ? 'The chain is complete' : `Missing: ${trace.missing.join(', ')}`}
      </div>
      <dl className="jp-nbmlops-facts">
        {snapshot && <Code snapshot={snapshot} actions={actions} />}
        {trace.data.map(({ name, digest }) => (
          <Fact key={name} name="Data">
            {name} <code title={digest}>{shortDigest(digest)}</code>
          </Fact>
        ))}
        {environment && (
          <Fact name="Environment">
            <code title={environment.id}>{environment.id.slice(0, 12)}</code>
            <span className="jp-nbmlops-quiet">
              {Object.keys(environment.packages).length} packages
            </span>
          </Fact>
        )}
      </dl>
      {snapshot?.source && <pre className="jp-nbmlops-source">{snapshot.source}</pre>}
    </>
  );
}

function Code(props: {
  readonly snapshot: TracedSnapshot;
  readonly actions: Actions;
}): React.JSX.Element {
  const { snapshot, actions } = props;
  const { notebook } = snapshot;
  return (
    <>
      <Fact name="Commit">
        <Commit commit={snapshot.commit} />
        <CopyButton label="Copy the commit" text={snapshot.commit} copy={actions.copy} />
      </Fact>
      {notebook !== null && (
        <Fact name="Cell">
          <button
            type="button"
            className="jp-nbmlops-link"
            title="Show this cell as it is now"
            onClick={() => {
              actions.showCell(notebook, snapshot.cell_id, snapshot.cell);
            }}
          >
            {snapshot.cell === null ? notebook : `Cell ${snapshot.cell} of ${notebook}`}
          </button>
        </Fact>
      )}
    </>
  );
}

function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12);
}
