import React from 'react';

import type { Actions } from '../actions';
import type { ModelItem } from '../documents';
import { keys, type PanelState } from '../state';
import { Button, Commit, Metrics, Moment, ProblemNote } from './parts';
import { TraceButton, TraceView } from './trace';

interface Props {
  readonly state: PanelState;
  readonly actions: Actions;
}

/** The model versions, each with a way to deploy it. */
export function Models({ state, actions }: Props): React.JSX.Element {
  return (
    <>
      <ProblemNote problem={state.problems[keys.section('models')]} />
      {state.models.length === 0 && (
        <p className="jp-nbmlops-empty">
          No models yet. A run makes one when its notebook calls <code>mlops.log_model</code>.
        </p>
      )}
      <ul className="jp-nbmlops-list">
        {state.models.map(item => (
          <ModelRow
            key={`${item.model}:${item.version}`}
            item={item}
            state={state}
            actions={actions}
          />
        ))}
      </ul>
    </>
  );
}

function ModelRow(props: Props & { readonly item: ModelItem }): React.JSX.Element {
  const { item, state, actions } = props;
  const name = `${item.model}:${item.version}`;
  const key = keys.deployOf(name);
  const isDeploying = state.busy.has(key);
  const reference = `model/${name}`;
  return (
    <li className="jp-nbmlops-row" data-testid={`model-${name}`}>
      <div className="jp-nbmlops-rowHead">
        <span className="jp-nbmlops-rowName" title={item.digest}>
          {name}
        </span>
        {[item.stage, ...item.aliases].map(
          label =>
            label !== null && (
              <span key={label} className="jp-nbmlops-pill">
                {label}
              </span>
            )
        )}
        <span className="jp-nbmlops-rowEnd">
          {isServed(state, item) ? (
            <span className="jp-nbmlops-pill jp-nbmlops-mod-good">deployed</span>
          ) : (
            <Button
              label={isDeploying ? 'Deploying…' : 'Deploy'}
              primary
              busy={isDeploying}
              onClick={() => {
                actions.deploy(item);
              }}
              ariaLabel={`Deploy ${name}`}
              testId={`deploy-${name}`}
            />
          )}
        </span>
      </div>
      <div className="jp-nbmlops-rowBody">
        {isDeploying && (
          <div className="jp-nbmlops-live" role="status">
            <div className="jp-nbmlops-progress jp-nbmlops-mod-indeterminate" aria-hidden="true">
              <div />
            </div>
            Starting a service and waiting until it answers
          </div>
        )}
        <ProblemNote
          problem={state.problems[key]}
          onDismiss={() => {
            actions.dismiss(key);
          }}
        />
        <Metrics metrics={item.metrics} most={6} />
        <div className="jp-nbmlops-byline">
          <Commit commit={item.commit} />
          <Moment time={item.created_at} now={state.now} />
          <TraceButton reference={reference} state={state} actions={actions} />
        </div>
        <TraceView reference={reference} state={state} actions={actions} />
      </div>
    </li>
  );
}

function isServed(state: PanelState, item: ModelItem): boolean {
  return state.deployments.some(
    ({ model, version, status }) =>
      model === item.model && version === item.version && status === 'running'
  );
}
