import React from 'react';

import type { Actions } from '../actions';
import { Mark, type Tone } from '../icons';
import type { CheckFinding, CheckReport } from '../records';
import { keys } from '../state';
import { Button, ProblemNote, Prose } from './parts';
import type { Props } from './run';

const TONES: Readonly<Record<CheckFinding['level'], Tone>> = {
  block: 'bad',
  warn: 'warning',
  advise: 'quiet'
};

/** What breaks the project's rules, file by file: each with its place and what mends it. */
export function Check({ state, actions }: Props): React.JSX.Element {
  const { check } = state;
  const isBusy = state.busy.has(keys.check);
  return (
    <>
      <ProblemNote
        problem={state.problems[keys.check]}
        onDismiss={() => {
          actions.dismiss(keys.check);
        }}
      />
      {check === null && isBusy && <p className="jp-nbmlops-empty">Checking…</p>}
      {check && <Report report={check} isBusy={isBusy} actions={actions} />}
    </>
  );
}

function Report(props: {
  readonly report: CheckReport;
  readonly isBusy: boolean;
  readonly actions: Actions;
}): React.JSX.Element {
  const { report, isBusy, actions } = props;
  const { findings, fixed } = report;
  const fixable = findings.filter(finding => finding.fixable).length;
  const paths = [...new Set(findings.map(finding => finding.path))];
  return (
    <>
      <div className="jp-nbmlops-verdict jp-nbmlops-padded" role="status">
        <Mark tone={findings.length === 0 ? 'good' : worst(findings)} />
        <span>
          {findings.length === 0 ? 'No rule is broken' : counted(findings.length, 'finding')} in{' '}
          {counted(report.notebooks, 'notebook')} and {counted(report.files, 'file')}
          {fixed.length > 0 && `; ${fixed.length} fixed`}
        </span>
        {fixable > 0 && (
          <Button
            label={`Fix ${fixable}`}
            busy={isBusy}
            title="Mend what can be mended without a change of what the code does"
            onClick={actions.fix}
            testId="fix"
          />
        )}
      </div>
      {paths.map(path => (
        <section key={path} className="jp-nbmlops-findings" aria-label={titleOf(path)}>
          <h4>{titleOf(path)}</h4>
          <ul>
            {findings
              .filter(finding => finding.path === path)
              .map((finding, index) => (
                <Finding key={index} finding={finding} actions={actions} />
              ))}
          </ul>
        </section>
      ))}
    </>
  );
}

function Finding(props: {
  readonly finding: CheckFinding;
  readonly actions: Actions;
}): React.JSX.Element {
  const { finding, actions } = props;
  const { code, level, path, cell, message, fix } = finding;
  return (
    <li data-testid={`finding-${code}`} data-level={level}>
      <Mark tone={TONES[level]} />
      <div>
        <div>
          {path !== '.' && (
            <>
              <button
                type="button"
                className="jp-nbmlops-link"
                title={`Open ${path}`}
                onClick={() => {
                  actions.showCell(path, null, cell);
                }}
              >
                {placeOf(finding)}
              </button>{' '}
            </>
          )}
          <Prose text={message} />
        </div>
        <div className="jp-nbmlops-hint">
          <Prose text={fix} />
        </div>
        <div className="jp-nbmlops-quiet jp-nbmlops-small">
          {level} · {code}
        </div>
      </div>
    </li>
  );
}

function placeOf({ cell, line }: CheckFinding): string {
  const places = [
    cell === null ? null : `Cell ${cell}`,
    line === null ? null : `${cell === null ? 'Line' : 'line'} ${line}`
  ];
  const known = places.filter(place => place !== null);
  return known.length > 0 ? `${known.join(', ')}:` : 'The file:';
}

function titleOf(path: string): string {
  return path === '.' ? 'The project' : path;
}

function worst(findings: readonly CheckFinding[]): Tone {
  const level = (['block', 'warn'] as const).find(one => findings.some(f => f.level === one));
  return TONES[level ?? 'advise'];
}

function counted(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}
