import { refreshIcon, runIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import type { NotebookAnswer, ProjectAnswer } from '../records';
import { keys, type PanelState } from '../state';
import { FormButtons, LaunchForm } from './form';
import { Button, IconButton, ProblemNote } from './parts';

interface Props {
  readonly state: PanelState;
  readonly actions: Actions;
}

/** The project's name, and the way to run what is open. */
export function Header({ state, actions }: Props): React.JSX.Element {
  const { project, problems } = state;
  return (
    <header className="jp-nbmlops-header">
      <div className="jp-nbmlops-titleRow">
        <h2 title={project ? `Project folder: /${project.path}` : undefined} data-testid="project">
          {project ? project.project : 'nbmlops'}
        </h2>
        <IconButton label="Refresh" icon={refreshIcon} onClick={actions.refresh} testId="refresh" />
      </div>
      <ProblemNote problem={problems[keys.notebook]} />
      {project && <Launch project={project} state={state} actions={actions} />}
      <ProblemNote
        problem={problems[keys.run]}
        onDismiss={() => {
          actions.dismiss(keys.run);
        }}
      />
    </header>
  );
}

function Launch(props: Props & { readonly project: ProjectAnswer }): React.JSX.Element {
  const { project, state, actions } = props;
  const notebook = project.notebook;
  if (notebook) {
    return <LaunchNotebook project={project} notebook={notebook} state={state} actions={actions} />;
  }
  return (
    <>
      <p className="jp-nbmlops-quiet">
        {state.place.notebook === null
          ? 'Open a notebook to run it, or run a pipeline:'
          : 'The open notebook cannot be run; run a pipeline:'}
      </p>
      <div className="jp-nbmlops-buttons">
        {project.pipelines.map(pipeline => (
          <Button
            key={pipeline}
            label={`Run ${pipeline}`}
            icon={runIcon}
            busy={state.busy.has(keys.run)}
            onClick={() => {
              actions.run(pipeline);
            }}
            testId={`run-pipeline-${pipeline}`}
          />
        ))}
        <CheckButton state={state} actions={actions} />
      </div>
    </>
  );
}

function LaunchNotebook(
  props: Props & { readonly project: ProjectAnswer; readonly notebook: NotebookAnswer }
): React.JSX.Element {
  const { project, notebook, state, actions } = props;
  const isBusy = state.busy.has(keys.run);
  const path = state.place.notebook ?? '';
  const count = notebook.parameters.length;
  const last = state.runs.find(({ pipeline }) => pipeline === notebook.pipeline);
  return (
    <>
      <div className="jp-nbmlops-place" title={path}>
        {path.split('/').pop()}
        <span className="jp-nbmlops-quiet">{aboutNotebook(notebook, project.pipelines)}</span>
      </div>
      <div className="jp-nbmlops-buttons">
        <Button
          label={isBusy ? 'Starting…' : 'Run'}
          icon={runIcon}
          primary
          busy={isBusy}
          onClick={() => {
            actions.run(null);
          }}
          title="Save the notebook, take a snapshot and run it as a job"
          ariaLabel={`Run ${path}`}
          testId="run"
        />
        {count > 0 && <FormButtons notebook={notebook} state={state} actions={actions} />}
        {last && (
          <Button
            label="Changes"
            title={`What has changed in the saved notebooks since ${last.run_id}`}
            onClick={() => {
              actions.showChanges(last.run_id);
            }}
            testId="changes"
          />
        )}
        <CheckButton state={state} actions={actions} />
      </div>
      {count > 0 && <LaunchForm notebook={notebook} state={state} actions={actions} />}
    </>
  );
}

function CheckButton({ state, actions }: Props): React.JSX.Element {
  return (
    <Button
      label="Check"
      busy={state.busy.has(keys.check)}
      title="Save the notebook, and hold the project against its rules"
      onClick={actions.check}
      testId="check"
    />
  );
}

/** What a Run of the notebook runs; one that no pipeline declares is a pipeline of its own. */
function aboutNotebook({ pipeline, step }: NotebookAnswer, declared: readonly string[]): string {
  if (!declared.includes(pipeline)) {
    return 'a pipeline of its own';
  }
  return step === null ? `pipeline ${pipeline}` : `step ${step} of pipeline ${pipeline}`;
}
