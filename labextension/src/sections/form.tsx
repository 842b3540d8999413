import { caretDownIcon, caretRightIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Actions } from '../actions';
import { literal } from '../format';
import type { NotebookAnswer, Parameter } from '../records';
import { keys, type PanelState } from '../state';
import { Button, ProblemNote } from './parts';

interface Props {
  readonly notebook: NotebookAnswer;
  readonly state: PanelState;
  readonly actions: Actions;
}

/** Unfold the form of a run, or of a sweep over the same parameters. */
export function FormButtons({ notebook, state, actions }: Props): React.JSX.Element {
  const given = notebook.parameters.filter(({ name }) => state.parameters[name] !== undefined);
  const isOpen = state.opened.has(keys.form);
  const isSweep = state.opened.has(keys.sweepForm);
  return (
    <>
      <Button
        label={given.length > 0 ? `Parameters (${given.length} set)` : 'Parameters'}
        icon={isOpen ? caretDownIcon : caretRightIcon}
        expanded={isOpen}
        onClick={() => {
          actions.toggle(keys.form);
        }}
        testId="parameters"
      />
      <Button
        label="Sweep"
        icon={isSweep ? caretDownIcon : caretRightIcon}
        expanded={isSweep}
        title="Run many times over a space of parameters, and find the best"
        onClick={() => {
          actions.toggle(keys.sweepForm);
        }}
        testId="sweep"
      />
    </>
  );
}

/** What to run the notebook with: a value for each parameter, or for a sweep several. */
export function LaunchForm({ notebook, state, actions }: Props): React.JSX.Element | null {
  const isSweep = state.opened.has(keys.sweepForm);
  if (!isSweep && !state.opened.has(keys.form)) {
    return null;
  }
  const isBusy = state.busy.has(isSweep ? keys.sweep : keys.run);
  return (
    <form
      className="jp-nbmlops-form"
      aria-label={isSweep ? 'Sweep' : 'Parameters'}
      onSubmit={event => {
        event.preventDefault();
        if (isBusy) {
          return;
        }
        if (isSweep) {
          actions.sweep();
        } else {
          actions.run(null);
        }
      }}
    >
      {isSweep && (
        <p className="jp-nbmlops-quiet">
          A parameter varies with several values, <code>2,4,8</code>, or a range,{' '}
          <code>50..400</code>; behind a range <code>:50</code> makes steps, <code>:log</code>{' '}
          orders of magnitude.
        </p>
      )}
      {notebook.parameters.map(parameter => (
        <Field
          key={parameter.name}
          parameter={parameter}
          isSweep={isSweep}
          value={state.parameters[parameter.name] ?? ''}
          onChange={value => {
            actions.setParameter(parameter.name, value);
          }}
        />
      ))}
      {isSweep ? (
        <SweepOptions notebook={notebook} state={state} actions={actions} />
      ) : (
        <button type="submit" hidden />
      )}
    </form>
  );
}

function SweepOptions({ state, actions }: Props): React.JSX.Element {
  const typed = state.sweepOptions;
  const search = typed.search ?? 'grid';
  const bind = (name: string): Bound => ({
    className: 'jp-mod-styled',
    'data-testid': `sweep-${name}`,
    value: typed[name] ?? '',
    onChange: event => {
      actions.setSweepOption(name, event.target.value);
    }
  });
  return (
    <>
      <hr />
      <Option name="search">
        <select {...bind('search')} value={search}>
          <option value="grid">grid</option>
          <option value="random">random</option>
          <option value="bayes">Bayesian</option>
        </select>
      </Option>
      <Option name="trials">
        <input
          {...bind('trials')}
          type="number"
          min={1}
          required={search !== 'grid'}
          placeholder={search === 'grid' ? 'all' : ''}
        />
      </Option>
      <Option name="at a time">
        <input {...bind('parallel')} type="number" min={1} placeholder="1" />
      </Option>
      <Option name="metric">
        <input
          {...bind('metric')}
          type="text"
          placeholder="the pipeline's"
          spellCheck={false}
          autoComplete="off"
        />
      </Option>
      <Option name="direction">
        <select {...bind('direction')}>
          <option value="">maximize</option>
          <option value="minimize">minimize</option>
        </select>
      </Option>
      <ProblemNote
        problem={state.problems[keys.sweep]}
        onDismiss={() => {
          actions.dismiss(keys.sweep);
        }}
      />
      <button
        type="submit"
        className="jp-nbmlops-button jp-mod-styled jp-mod-accept"
        disabled={state.busy.has(keys.sweep)}
        data-testid="start-sweep"
      >
        {state.busy.has(keys.sweep) ? 'Starting…' : 'Start sweep'}
      </button>
    </>
  );
}

interface Bound {
  readonly className: string;
  readonly 'data-testid': string;
  readonly value: string;
  readonly onChange: (event: React.ChangeEvent<HTMLInputElement | HTMLSelectElement>) => void;
}

function Option(props: {
  readonly name: string;
  readonly children: React.ReactNode;
}): React.JSX.Element {
  return (
    <label>
      <span className="jp-nbmlops-fieldName">{props.name}</span>
      {props.children}
    </label>
  );
}

function Field(props: {
  readonly parameter: Parameter;
  readonly isSweep: boolean;
  readonly value: string;
  readonly onChange: (value: string) => void;
}): React.JSX.Element {
  const { parameter, isSweep, value, onChange } = props;
  const usual = literal(parameter.default);
  const shared: Bound = {
    className: 'jp-mod-styled',
    value,
    'data-testid': `parameter-${parameter.name}`,
    onChange: event => {
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
          {isSweep && <option value="true,false">both</option>}
        </select>
      ) : (
        <input {...shared} type="text" placeholder={usual} spellCheck={false} autoComplete="off" />
      )}
    </label>
  );
}
