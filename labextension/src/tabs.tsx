/** What opens in Lab's main area: runs side by side, and the files that runs left. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget, ToolbarButton } from '@jupyterlab/apputils';
import { ReactWidget, refreshIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';
import React from 'react';

import type { Actions } from './actions';
import type { Api } from './api';
import { pipelineIcon } from './icons';
import { type Outcome, settled } from './outcome';
import type { Comparison } from './records';
import { ComparisonView } from './sections/comparison';
import { ProblemNote } from './sections/parts';

type ShowCell = Actions['showCell'];

/** Opens tabs; one that is open already is shown, and asked anew. */
export class Tabs {
  constructor(
    private readonly _shell: JupyterFrontEnd.IShell,
    private readonly _api: Api
  ) {}

  /** Show runs side by side; with `now` what has changed in the notebooks since the only one. */
  compare(path: string, runIds: readonly string[], now: boolean, showCell: ShowCell): void {
    const id = `nbmlops-compare-${now ? 'now-' : ''}${runIds.join('-')}`;
    const shown = this._find(id);
    if (shown?.content instanceof ComparisonTab) {
      shown.content.load();
      this._shell.activateById(id);
      return;
    }
    const ask = (): Promise<Comparison> => this._api.compare(path, runIds, now);
    const content = new ComparisonTab(ask, showCell);
    content.title.label = now ? 'Changes since the last run' : `${runIds.length} runs compared`;
    content.title.caption = runIds.join('\n');
    const tab = this._add(id, content);
    tab.toolbar.addItem(
      'refresh',
      new ToolbarButton({
        icon: refreshIcon,
        tooltip: 'Compare again',
        onClick: () => {
          content.load();
        }
      })
    );
  }

  /** Show a file that a run left, if it is of a kind that can be shown; else save it. */
  async showFile(runId: string, name: string, attempt: number | null, data: Blob): Promise<void> {
    const id = `nbmlops-file-${runId}-${attempt ?? ''}-${name}`;
    if (this._find(id)) {
      this._shell.activateById(id);
      return;
    }
    const content = await fileWidget(data, name);
    if (content === null) {
      save(data, name);
      return;
    }
    content.title.label = name;
    content.title.caption = `${name}, left by ${runId}${attempt === null ? '' : `, attempt ${attempt}`}`;
    this._add(id, content).toolbar.hide();
  }

  private _find(id: string): MainAreaWidget | undefined {
    for (const widget of this._shell.widgets('main')) {
      if (widget.id === id && widget instanceof MainAreaWidget) {
        return widget;
      }
    }
    return undefined;
  }

  private _add<T extends Widget>(id: string, content: T): MainAreaWidget<T> {
    const tab = new MainAreaWidget({ content });
    tab.id = id;
    content.title.icon = pipelineIcon;
    content.title.closable = true;
    this._shell.add(tab, 'main');
    this._shell.activateById(id);
    return tab;
  }
}

/** Runs side by side, asked for when it opens and when somebody wants it again. */
class ComparisonTab extends ReactWidget {
  constructor(
    private readonly _ask: () => Promise<Comparison>,
    private readonly _showCell: ShowCell
  ) {
    super();
    this.addClass('jp-nbmlops-panel');
    this.addClass('jp-nbmlops-comparison');
    this.node.tabIndex = 0;
    this.load();
  }

  load(): void {
    void settled(this._ask()).then(outcome => {
      this._outcome = outcome;
      this.update();
    });
  }

  protected override render(): React.JSX.Element {
    const { value, problem } = this._outcome ?? {};
    return (
      <>
        <ProblemNote problem={problem} />
        {!value && !problem && <p className="jp-nbmlops-empty">Comparing…</p>}
        {value && <ComparisonView comparison={value} showCell={this._showCell} />}
      </>
    );
  }

  private _outcome: Outcome<Comparison> | null = null;
}

/** What a page that a run left may load: what it holds itself, and nothing from elsewhere. */
const POLICY =
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; form-action 'none'";

/** A widget that shows the data; `null` where its type cannot be shown. */
async function fileWidget(data: Blob, name: string): Promise<Widget | null> {
  const type = data.type.split(';')[0];
  if (type === 'text/html') {
    // A job wrote it. Without a right of its own it runs nothing, and is no part of this page.
    const frame = document.createElement('iframe');
    frame.setAttribute('sandbox', '');
    frame.title = name;
    frame.srcdoc = `<meta http-equiv="Content-Security-Policy" content="${POLICY}">${await data.text()}`;
    return shown(frame);
  }
  if (type === 'text/plain' || type === 'application/json') {
    const text = document.createElement('pre');
    text.tabIndex = 0;
    text.textContent = await data.text();
    return shown(text);
  }
  if (type === 'image/png' || type === 'image/jpeg') {
    const picture = document.createElement('img');
    picture.alt = name;
    picture.src = URL.createObjectURL(data);
    const widget = shown(picture);
    widget.disposed.connect(() => {
      URL.revokeObjectURL(picture.src);
    });
    return widget;
  }
  return null;
}

function shown(node: HTMLElement): Widget {
  const widget = new Widget();
  widget.addClass('jp-nbmlops-file');
  widget.node.tabIndex = -1;
  widget.node.append(node);
  return widget;
}

/** Have the browser save a file under the last part of its name. */
function save(data: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(data);
  link.download = name.split('/').pop() ?? 'file';
  link.click();
  // The browser takes it a moment later.
  setTimeout(() => {
    URL.revokeObjectURL(link.href);
  }, 10000);
}
