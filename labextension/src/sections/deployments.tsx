import React from 'react';

import type { Actions } from '../actions';
import { figure, webAddress } from '../format';
import { Mark, type Tone } from '../icons';
import type { Answer, DeploymentRecord, DeploymentStatus, MonitorReport } from '../records';
import { keys, type PanelState } from '../state';
import { Button, Commit, CopyButton, Moment, ProblemNote } from './parts';
import { TraceButton, TraceView } from './trace';

interface Props {
  readonly state: PanelState;
  readonly actions: Actions;
}

interface RowProps extends Props {
  readonly deployment: DeploymentRecord;
}

const TONES: Readonly<Record<DeploymentStatus, Tone>> = {
  starting: 'active',
  running: 'good',
  failed: 'bad',
  stopped: 'quiet'
};

/** What serves now. */
export function Deployments({ state, actions }: Props): React.JSX.Element {
  return (
    <>
      <ProblemNote problem={state.problems[keys.section('deployments')]} />
      {state.deployments.length === 0 && (
        <p className="jp-nbmlops-empty">
          Nothing serves now. Press Deploy on a model to give it a URL.
        </p>
      )}
      <ul className="jp-nbmlops-list">
        {state.deployments.map(deployment => (
          <DeploymentRow
            key={deployment.deployment_id}
            deployment={deployment}
            state={state}
            actions={actions}
          />
        ))}
      </ul>
    </>
  );
}

function DeploymentRow({ deployment, state, actions }: RowProps): React.JSX.Element {
  const { endpoint, status } = deployment;
  const undeploy = keys.undeployOf(endpoint);
  const reference = `deployment/${deployment.deployment_id}`;
  return (
    <li className="jp-nbmlops-row" data-testid={`deployment-${endpoint}`} data-status={status}>
      <div className="jp-nbmlops-rowHead">
        <Mark tone={TONES[status]} />
        <span className="jp-nbmlops-rowName">{endpoint}</span>
        <span className="jp-nbmlops-status">{status}</span>
        <span className="jp-nbmlops-rowEnd">
          {status === 'running' && (
            <MonitorBadge deployment={deployment} state={state} actions={actions} />
          )}
        </span>
      </div>
      <div className="jp-nbmlops-rowBody">
        {deployment.cause && (
          <div className="jp-nbmlops-cause">
            <div className="jp-nbmlops-causeMessage">{deployment.cause.message}</div>
            {deployment.cause.hint && (
              <div className="jp-nbmlops-hint">{deployment.cause.hint}</div>
            )}
          </div>
        )}
        <Address deployment={deployment} copy={actions.copy} />
        <div className="jp-nbmlops-byline">
          <span className="jp-nbmlops-pill">
            {deployment.model}:{deployment.version}
          </span>
          <Commit commit={deployment.commit} />
          <Moment time={deployment.created_at} now={state.now} />
        </div>
        {status === 'running' && <Report endpoint={endpoint} state={state} actions={actions} />}
        <ProblemNote
          problem={state.problems[undeploy]}
          onDismiss={() => {
            actions.dismiss(undeploy);
          }}
        />
        <div className="jp-nbmlops-buttons">
          <TraceButton reference={reference} state={state} actions={actions} />
          <Button
            label={state.busy.has(undeploy) ? 'Stopping…' : 'Undeploy'}
            busy={state.busy.has(undeploy)}
            onClick={() => {
              actions.undeploy(endpoint);
            }}
            ariaLabel={`Undeploy ${endpoint}`}
            testId={`undeploy-${endpoint}`}
          />
        </div>
        <TraceView reference={reference} state={state} actions={actions} />
      </div>
    </li>
  );
}

/** The URL to call, as a link to its documentation when it is a web address. */
function Address(props: {
  readonly deployment: DeploymentRecord;
  readonly copy: (text: string) => void;
}): React.JSX.Element {
  const { url, endpoint } = props.deployment;
  const address = webAddress(url);
  return (
    <div className="jp-nbmlops-url" data-testid={`url-${endpoint}`}>
      {address === null ? (
        <span>{url}</span>
      ) : (
        <a
          href={`${address.replace(/\/$/, '')}/docs`}
          target="_blank"
          rel="noopener noreferrer"
          title={`Open the documentation of ${endpoint}`}
        >
          {url}
        </a>
      )}
      <CopyButton label={`Copy the URL of ${endpoint}`} text={url} copy={props.copy} />
    </div>
  );
}

const BADGES: Readonly<Record<string, Tone>> = { ok: 'good', alert: 'bad', unknown: 'quiet' };

/** What the monitor says, in a word; unfolds the four questions. */
function MonitorBadge({ deployment, state, actions }: RowProps): React.JSX.Element {
  const { endpoint } = deployment;
  const key = keys.monitorOf(endpoint);
  const verdict = state.reports[endpoint]?.verdict ?? deployment.monitor;
  return (
    <button
      type="button"
      className="jp-nbmlops-badge"
      aria-expanded={state.opened.has(key)}
      aria-label={`Monitor of ${endpoint}: ${verdict ?? 'not checked yet'}`}
      title="Do calls still look like the training data?"
      onClick={() => {
        actions.toggle(key);
      }}
      data-testid={`monitor-${endpoint}`}
      data-verdict={verdict ?? 'none'}
    >
      <Mark tone={BADGES[verdict ?? 'unknown'] ?? 'quiet'} />
      <span>{verdict === null ? 'monitor' : `monitor: ${verdict}`}</span>
    </button>
  );
}

const QUESTIONS = [
  ['features', 'Do the inputs still look like the training data?'],
  ['predictions', 'Do the predictions still look like the training labels?'],
  ['bounds', 'Is each output within plausible bounds?'],
  ['performance', 'Are the metrics on the actuals as good as on the test set?']
] as const;

function Report(props: Props & { readonly endpoint: string }): React.JSX.Element | null {
  const { endpoint, state } = props;
  const key = keys.monitorOf(endpoint);
  if (!state.opened.has(key)) {
    return null;
  }
  const report = state.reports[endpoint];
  return (
    <div className="jp-nbmlops-inset" role="region" aria-label={`Monitor report of ${endpoint}`}>
      <ProblemNote problem={state.problems[key]} />
      {!report && !state.problems[key] && <p className="jp-nbmlops-quiet">Comparing…</p>}
      {report && (
        <>
          <ul className="jp-nbmlops-questions">
            {QUESTIONS.map(([name, question]) => (
              <Question key={name} question={question} answer={report.questions[name]} />
            ))}
          </ul>
          <Drifted report={report} />
          <p className="jp-nbmlops-quiet">
            {report.window.rows} {report.window.rows === 1 ? 'row' : 'rows'} of calls against{' '}
            {report.reference.rows} of training
          </p>
        </>
      )}
    </div>
  );
}

const ANSWERS: Readonly<Record<Answer['answer'], Tone>> = {
  yes: 'good',
  no: 'bad',
  unknown: 'quiet'
};

function Question(props: {
  readonly question: string;
  readonly answer: Answer;
}): React.JSX.Element {
  const { question, answer } = props;
  return (
    <li>
      <Mark tone={ANSWERS[answer.answer]} />
      <div>
        <div>
          {question} <strong>{answer.answer}</strong>
        </div>
        <div className="jp-nbmlops-hint">{answer.reason}</div>
      </div>
    </li>
  );
}

/** The columns that differ from the training data, and by how much. */
function Drifted({ report }: { readonly report: MonitorReport }): React.JSX.Element | null {
  const drifted = report.columns.filter(({ verdict }) => verdict === 'drift');
  if (drifted.length === 0) {
    return null;
  }
  return (
    <dl className="jp-nbmlops-metrics" aria-label="Drifted columns">
      {drifted.map(({ name, reason, effect }) => (
        <div key={name} title={reason}>
          <dt>{name}</dt>
          <dd>{effect ? `${effect.name} ${figure(effect.value)}` : 'drift'}</dd>
        </div>
      ))}
    </dl>
  );
}
