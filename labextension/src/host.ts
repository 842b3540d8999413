import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, showDialog } from '@jupyterlab/apputils';
import type { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { NotebookPanel, type INotebookTracker } from '@jupyterlab/notebook';

import { joinPath } from './format';
import type { CheckFinding, InitAnswer } from './records';
import { RequestFailed } from './request';
import type { Place } from './state';

/** What the panel needs from the JupyterLab around it. */
export class Host {
  constructor(
    private readonly _app: JupyterFrontEnd,
    private readonly _tracker: INotebookTracker,
    private readonly _browser: IDefaultFileBrowser | null
  ) {}

  /** Where people are: the current notebook and the file browser's folder. */
  place(): Place {
    const folder = this._local(this._browser?.model.path ?? '');
    const current = this._tracker.currentWidget;
    const notebook = current ? this._local(current.context.path) : null;
    return { path: notebook ?? folder, folder, notebook };
  }

  /**
   * Call `onChange` whenever people go elsewhere, and `onSave` when the notebook is saved.
   *
   * Returns what ends it.
   */
  follow(onChange: () => void, onSave: () => void): () => void {
    let current: NotebookPanel | null = null;
    const watch = (): void => {
      current?.context.pathChanged.disconnect(onChange);
      current?.context.fileChanged.disconnect(onSave);
      current = this._tracker.currentWidget;
      current?.context.pathChanged.connect(onChange);
      current?.context.fileChanged.connect(onSave);
      onChange();
    };
    this._tracker.currentChanged.connect(watch);
    this._browser?.model.pathChanged.connect(onChange);
    watch();
    return () => {
      current?.context.pathChanged.disconnect(onChange);
      current?.context.fileChanged.disconnect(onSave);
      this._tracker.currentChanged.disconnect(watch);
      this._browser?.model.pathChanged.disconnect(onChange);
    };
  }

  /**
   * Save the open notebook when it has unsaved changes.
   *
   * Rejects when it still has them afterwards, since what is not saved would not run.
   */
  async saveNotebook(): Promise<void> {
    const context = this._tracker.currentWidget?.context;
    if (!context || !isDirty(context)) {
      return;
    }
    await context.save();
    if (isDirty(context)) {
      throw new RequestFailed(
        'unsaved-notebook',
        `${context.path} could not be saved, so nothing was done with it.`,
        'Save it, then try again.'
      );
    }
  }

  /** Go to a project that was just made, and open its last notebook. */
  async openProject(folder: string, name: string, made: InitAnswer): Promise<void> {
    const root = joinPath(folder, name);
    await this._browser?.model.cd(`/${root}`);
    const notebook = made.created.filter(path => path.endsWith('train.ipynb')).pop();
    if (notebook !== undefined) {
      await this._app.commands.execute('docmanager:open', { path: joinPath(root, notebook) });
    }
  }

  /** Open a notebook at a cell, by its id or else by its position from 1. */
  async showCell(path: string, cellId: string | null, cell: number | null): Promise<void> {
    const widget: unknown = await this._app.commands.execute('docmanager:open', { path });
    if (!(widget instanceof NotebookPanel)) {
      return;
    }
    await widget.context.ready;
    await widget.revealed;
    const { content } = widget;
    const byId = content.widgets.findIndex(({ model }) => model.id === cellId);
    const index = byId >= 0 ? byId : (cell ?? 0) - 1;
    if (index >= 0 && index < content.widgets.length) {
      content.activeCellIndex = index;
      await content.scrollToItem(index, 'center');
    }
  }

  /**
   * Take notebooks from disk anew where they are open and have no unsaved edits.
   *
   * Returns the paths of those that have.
   */
  async reload(paths: readonly string[]): Promise<readonly string[]> {
    const open = this._tracker.filter(({ context }) => paths.includes(this._local(context.path)));
    const left = open.filter(({ context }) => isDirty(context));
    await Promise.all(
      open.filter(({ context }) => !isDirty(context)).map(({ context }) => context.revert())
    );
    return left.map(({ context }) => this._local(context.path));
  }

  /** Ask before files are changed: what is taken out of them does not come back. */
  async confirmFix(findings: readonly CheckFinding[]): Promise<boolean> {
    const files = [...new Set(findings.map(({ path }) => path))];
    const named = files.slice(0, 5).join(', ');
    const { button } = await showDialog({
      title: `Fix ${findings.length} finding${findings.length === 1 ? '' : 's'}?`,
      body:
        `Outputs, doubled cell ids and old formats are mended in ${named}` +
        `${files.length > 5 ? ` and ${files.length - 5} more` : ''}.` +
        ' Outputs that are taken out come back only when the cells are run again.',
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Fix' })]
    });
    return button.accept;
  }

  async confirmUndeploy(endpoint: string): Promise<boolean> {
    const { button } = await showDialog({
      title: `Undeploy ${endpoint}?`,
      body: 'Its service stops, and calls to its URL fail until it is deployed again.',
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Undeploy' })]
    });
    return button.accept;
  }

  copy(text: string): void {
    Clipboard.copyToSystem(text);
  }

  private _local(path: string): string {
    return this._app.serviceManager.contents.localPath(path);
  }
}

function isDirty(context: NotebookPanel['context']): boolean {
  return context.model.dirty;
}
