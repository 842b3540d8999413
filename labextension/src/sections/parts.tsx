/** Small pieces that the sections share. */
import {
  caretDownIcon,
  caretRightIcon,
  closeIcon,
  copyIcon,
  type LabIcon
} from '@jupyterlab/ui-components';
import React from 'react';

import { ago, figure, shortCommit } from '../format';
import type { Problem } from '../outcome';

/** A push button with a text, busy or not. */
export function Button(props: {
  readonly label: string;
  readonly onClick: () => void;
  readonly icon?: LabIcon;
  readonly primary?: boolean;
  readonly busy?: boolean;
  readonly disabled?: boolean;
  readonly title?: string;
  readonly ariaLabel?: string;
  readonly expanded?: boolean;
  readonly testId?: string;
}): React.JSX.Element {
  const Icon = props.icon?.react;
  const tone = props.primary ? 'jp-mod-accept' : 'jp-mod-minimal';
  return (
    <button
      type="button"
      className={`jp-nbmlops-button jp-mod-styled ${tone}`}
      onClick={props.onClick}
      disabled={props.disabled || props.busy}
      aria-busy={props.busy}
      aria-label={props.ariaLabel}
      aria-expanded={props.expanded}
      title={props.title}
      data-testid={props.testId}
    >
      {props.busy && <span className="jp-nbmlops-wait" aria-hidden="true" />}
      {!props.busy && Icon && <Icon tag="span" className="jp-nbmlops-buttonIcon" />}
      <span>{props.label}</span>
    </button>
  );
}

/** A small button with an icon alone; its label is its name and its tooltip. */
export function IconButton(props: {
  readonly label: string;
  readonly icon: LabIcon;
  readonly onClick: () => void;
  readonly disabled?: boolean;
  readonly testId?: string;
}): React.JSX.Element {
  const Icon = props.icon.react;
  return (
    <button
      type="button"
      className="jp-nbmlops-iconButton"
      onClick={props.onClick}
      disabled={props.disabled}
      aria-label={props.label}
      title={props.label}
      data-testid={props.testId}
    >
      <Icon tag="span" />
    </button>
  );
}

export function CopyButton(props: {
  readonly label: string;
  readonly text: string;
  readonly copy: (text: string) => void;
}): React.JSX.Element {
  return (
    <IconButton
      label={props.label}
      icon={copyIcon}
      onClick={() => {
        props.copy(props.text);
      }}
    />
  );
}

/** What went wrong and what to do next, where it happened. */
export function ProblemNote(props: {
  readonly problem: Problem | undefined;
  readonly onDismiss?: () => void;
}): React.JSX.Element | null {
  const { problem, onDismiss } = props;
  if (!problem) {
    return null;
  }
  return (
    <div className="jp-nbmlops-problem" role="alert" data-code={problem.code}>
      <div>
        <div className="jp-nbmlops-problemMessage">{problem.message}</div>
        {problem.hint && (
          <div className="jp-nbmlops-hint">
            <Prose text={problem.hint} />
          </div>
        )}
      </div>
      {onDismiss && <IconButton label="Dismiss" icon={closeIcon} onClick={onDismiss} />}
    </div>
  );
}

/** A heading that folds what it heads. */
export function Section(props: {
  readonly name: string;
  readonly title: string;
  readonly count: number;
  readonly isOpen: boolean;
  readonly onToggle: () => void;
  readonly children: React.ReactNode;
}): React.JSX.Element {
  const Caret = props.isOpen ? caretDownIcon.react : caretRightIcon.react;
  const body = `jp-nbmlops-${props.name}`;
  return (
    <section
      className="jp-nbmlops-section"
      aria-label={props.title}
      data-testid={`section-${props.name}`}
    >
      <h3 className="jp-nbmlops-sectionTitle">
        <button
          type="button"
          onClick={props.onToggle}
          aria-expanded={props.isOpen}
          aria-controls={body}
        >
          <Caret tag="span" />
          <span>{props.title}</span>
          <span className="jp-nbmlops-count">{props.count}</span>
        </button>
      </h3>
      <div id={body} hidden={!props.isOpen}>
        {props.isOpen && props.children}
      </div>
    </section>
  );
}

/** Metrics as name and figure, `most` of them. */
export function Metrics(props: {
  readonly metrics: Readonly<Record<string, number | null>>;
  readonly most: number;
}): React.JSX.Element | null {
  const all = Object.entries(props.metrics);
  if (all.length === 0) {
    return null;
  }
  const hidden = all.length - props.most;
  return (
    <dl className="jp-nbmlops-metrics">
      {all.slice(0, props.most).map(([name, value]) => (
        <div key={name} title={`${name}: ${value ?? 'not a number'}`}>
          <dt>{name}</dt>
          <dd>{figure(value)}</dd>
        </div>
      ))}
      {hidden > 0 && <div className="jp-nbmlops-quiet">+{hidden} more</div>}
    </dl>
  );
}

/** A commit, short, with the whole of it as tooltip. */
export function Commit({ commit }: { readonly commit: string }): React.JSX.Element {
  return (
    <code className="jp-nbmlops-commit" title={`commit ${commit}`}>
      {shortCommit(commit)}
    </code>
  );
}

/** How long ago something was, with the exact time as tooltip. */
export function Moment(props: { readonly time: string; readonly now: number }): React.JSX.Element {
  return (
    <time dateTime={props.time} title={new Date(props.time).toLocaleString()}>
      {ago(props.time, props.now)}
    </time>
  );
}

/** A bar of `done` out of `total`. */
export function Progress(props: {
  readonly label: string;
  readonly done: number;
  readonly total: number;
  readonly unit: string;
}): React.JSX.Element {
  const share = props.total > 0 ? Math.min(1, props.done / props.total) : 0;
  return (
    <div
      className="jp-nbmlops-progress"
      role="progressbar"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={props.total}
      aria-valuenow={props.done}
      aria-valuetext={`${props.done} of ${props.total} ${props.unit}`}
    >
      <div style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** A name and what it is, in a list of facts. */
export function Fact(props: {
  readonly name: string;
  readonly children: React.ReactNode;
}): React.JSX.Element {
  return (
    <div className="jp-nbmlops-fact">
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

/** A unified diff; each line's sign says what the colour says. */
export function DiffText(props: {
  readonly label: string;
  readonly diff: string;
}): React.JSX.Element {
  return (
    <pre className="jp-nbmlops-diff" tabIndex={0} aria-label={props.label}>
      {props.diff.split('\n').map((line, index) => (
        <span key={index} data-sign={signOf(line)}>
          {`${line}\n`}
        </span>
      ))}
    </pre>
  );
}

function signOf(line: string): string | undefined {
  const signs: Readonly<Record<string, string>> = { '+': 'added', '-': 'removed', '@': 'place' };
  return signs[line.charAt(0)];
}

/** Chooses a run to be compared with others. */
export function Selector(props: {
  readonly runId: string;
  readonly selected: ReadonlySet<string>;
  readonly select: (runId: string) => void;
}): React.JSX.Element {
  return (
    <input
      type="checkbox"
      className="jp-nbmlops-selector"
      aria-label={`Choose ${props.runId} to compare`}
      title="Choose to compare"
      checked={props.selected.has(props.runId)}
      onChange={() => {
        props.select(props.runId);
      }}
      data-testid={`select-${props.runId}`}
    />
  );
}

/** A sentence; what stands between backticks is something to type. */
export function Prose({ text }: { readonly text: string }): React.JSX.Element {
  const parts = text.split('`');
  // An odd backtick is one that was meant as such.
  return parts.length % 2 === 0 ? (
    <>{text}</>
  ) : (
    <>{parts.map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>
  );
}
