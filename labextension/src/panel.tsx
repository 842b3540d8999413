import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import React from 'react';

import type { Actions } from './actions';
import { pipelineIcon } from './icons';
import type { PanelModel } from './model';
import { Check } from './sections/check';
import { Deployments } from './sections/deployments';
import { NoProject } from './sections/empty';
import { Header } from './sections/header';
import { Models } from './sections/models';
import { ProblemNote, Section } from './sections/parts';
import { itemsOf, Runs } from './sections/runs';
import { keys, type PanelState, type SectionName } from './state';

/** The side panel; it tells its model whether anybody can see it. */
export class NbmlopsPanel extends ReactWidget {
  constructor(
    private readonly _model: PanelModel,
    private readonly _actions: Actions
  ) {
    super();
    this.id = 'nbmlops-panel';
    this.title.icon = pipelineIcon;
    this.title.caption = 'nbmlops';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'nbmlops');
    this.addClass('jp-nbmlops-panel');
    _model.changed.connect(this._onChanged);
  }

  override dispose(): void {
    this._model.changed.disconnect(this._onChanged);
    this._model.dispose();
    super.dispose();
  }

  protected override render(): React.JSX.Element {
    return <PanelView state={this._model.state} actions={this._actions} />;
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._model.setVisible(true);
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._model.setVisible(false);
  }

  private readonly _onChanged = (): void => {
    if (this.isVisible) {
      this.update();
    }
  };
}

/** The whole panel as a function of its state. */
export function PanelView(props: {
  readonly state: PanelState;
  readonly actions: Actions;
}): React.JSX.Element {
  const { state, actions } = props;
  const problem = state.problems[keys.project];
  if (problem?.code === 'no-project' && !state.project) {
    return <NoProject state={state} actions={actions} />;
  }
  return (
    <>
      <Header state={state} actions={actions} />
      <ProblemNote problem={problem} />
      {!state.loaded && !state.project && <p className="jp-nbmlops-empty">Looking…</p>}
      {state.project &&
        SECTIONS.filter(({ isShown }) => isShown(state)).map(({ name, title, View, count }) => (
          <Section
            key={name}
            name={name}
            title={title}
            count={count(state)}
            isOpen={state.opened.has(keys.section(name))}
            onToggle={() => {
              actions.toggle(keys.section(name));
            }}
          >
            <View state={state} actions={actions} />
          </Section>
        ))}
    </>
  );
}

interface SectionEntry {
  readonly name: SectionName;
  readonly title: string;
  readonly View: typeof Runs;
  readonly count: (state: PanelState) => number;
  readonly isShown: (state: PanelState) => boolean;
}

const always = (): boolean => true;

const SECTIONS: readonly SectionEntry[] = [
  {
    name: 'check',
    title: 'Check',
    View: Check,
    count: state => state.check?.findings.length ?? 0,
    isShown: ({ check, busy, problems }) =>
      check !== null || busy.has(keys.check) || keys.check in problems
  },
  {
    name: 'runs',
    title: 'Runs',
    View: Runs,
    count: state => itemsOf(state).length,
    isShown: always
  },
  {
    name: 'models',
    title: 'Models',
    View: Models,
    count: state => state.models.length,
    isShown: always
  },
  {
    name: 'deployments',
    title: 'Deployments',
    View: Deployments,
    count: state => state.deployments.length,
    isShown: always
  }
];
