import { caretDownIcon, caretRightIcon, refreshIcon, runIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import { literal } from '../format';
import type { NotebookAnswer, Parameter, ProjectAnswer } from '../records';
import { keys, type PanelState } from '../state';
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
      </div>
    </>
  );
}

function LaunchNotebook(
  props: Props & { readonly project: ProjectAnswer; readonly notebook: NotebookAnswer }
): React.JSX.Element {
  const { project, notebook, state, actions } = props;
  const isOpen = state.opened.has(keys.form);
  const isBusy = state.busy.has(keys.run);
  const path = state.place.notebook ?? '';
  const given = notebook.parameters.filter(({ name }) => state.parameters[name] !== undefined);
  const count = notebook.parameters.length;
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
        {count > 0 && (
          <Button
            label={given.length > 0 ? `Parameters (${given.length} set)` : 'Parameters'}
            icon={isOpen ? caretDownIcon : caretRightIcon}
            expanded={isOpen}
            onClick={() => {
              actions.toggle(keys.form);
            }}
            testId="parameters"
          />
        )}
      </div>
      {isOpen && count > 0 && (
        <form
          className="jp-nbmlops-form"
          aria-label="Parameters"
          onSubmit={event => {
            event.preventDefault();
            if (!isBusy) {
              actions.run(null);
            }
          }}
        >
          {notebook.parameters.map(parameter => (
            <Field
              key={parameter.name}
              parameter={parameter}
              value={state.parameters[parameter.name] ?? ''}
              onChange={value => {
                actions.setParameter(parameter.name, value);
              }}
            />
          ))}
          <button type="submit" hidden />
        </form>
      )}
    </>
  );
}

/** What a Run of the notebook runs; one that no pipeline declares is a pipeline of its own. */
function aboutNotebook({ pipeline, step }: NotebookAnswer, declared: readonly string[]): string {
  if (!declared.includes(pipeline)) {
    return 'a pipeline of its own';
  }
  return step === null ? `pipeline ${pipeline}` : `step ${step} of pipeline ${pipeline}`;
}

function Field(props: {
  readonly parameter: Parameter;
  readonly value: string;
  readonly onChange: (value: string) => void;
}): React.JSX.Element {
  const { parameter, value, onChange } = props;
  const usual = literal(parameter.default);
  const shared = {
    className: 'jp-mod-styled',
    value,
    'data-testid': `parameter-${parameter.name}`,
    onChange: (event: React.ChangeEvent<HTMLInputElement | HTMLSelectElement>) => {
      onChange(event.target.value);
    }
  };
  return (
    <label title={parameter.help ?? undefined}>
      <span className="jp-nbmlops-fieldName">
        {parameter.name}
        <span className="jp-nbmlops-quiet">{parameter.type}</span>
      </span>
      {parameter.type === 'bool' ? (
        <select {...shared}>
          <option value="">{usual} (default)</option>
          <option value="true">True</option>
          <option value="false">False</option>
        </select>
      ) : (
        <input {...shared} type="text" placeholder={usual} spellCheck={false} autoComplete="off" />
      )}
    </label>
  );
}
