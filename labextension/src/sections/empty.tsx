import { addIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import { pipelineIcon } from '../icons';
import { keys, type PanelState } from '../state';
import { Button, ProblemNote } from './parts';

/** What there is to do where no project is. */
export function NoProject(props: {
  readonly state: PanelState;
  readonly actions: Actions;
}): React.JSX.Element {
  const { state, actions } = props;
  const [name, setName] = React.useState('my-project');
  const Icon = pipelineIcon.react;
  const isBusy = state.busy.has(keys.init);
  return (
    <form
      className="jp-nbmlops-noProject"
      aria-label="Create the example project"
      data-testid="no-project"
      onSubmit={event => {
        event.preventDefault();
        if (!isBusy && name.trim() !== '') {
          actions.init(name.trim());
        }
      }}
    >
      <Icon tag="span" className="jp-nbmlops-hero" />
      <p>
        <strong>No project here yet.</strong>
      </p>
      <p>
        A project is a folder with an <code>nbmlops.toml</code>. Its notebooks become pipelines that
        start from a git commit, run as jobs, and end as services that are watched.
      </p>
      <label>
        <span className="jp-nbmlops-fieldName">Name of the folder</span>
        <input
          type="text"
          className="jp-mod-styled"
          value={name}
          spellCheck={false}
          onChange={event => {
            setName(event.target.value);
          }}
          data-testid="init-name"
        />
      </label>
      <Button
        label={isBusy ? 'Creating…' : 'Create the example project'}
        icon={addIcon}
        primary
        busy={isBusy}
        disabled={name.trim() === ''}
        onClick={() => {
          actions.init(name.trim());
        }}
        testId="init"
      />
      <p className="jp-nbmlops-quiet">in /{state.place.folder}</p>
      <ProblemNote
        problem={state.problems[keys.init]}
        onDismiss={() => {
          actions.dismiss(keys.init);
        }}
      />
    </form>
  );
}
