/**
 * Shows the static form of our widgets where their kernel is gone.
 *
 * A report or a sweep leaves text, HTML and a picture beside its live view in one output, and Lab
 * prefers the view, also where no kernel can draw it any more: then it shows an error. Here the view
 * is hidden behind the output's next form until the kernel is known to have its model. Nothing of
 * the document is touched.
 */
import type { CodeCell } from '@jupyterlab/cells';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { IOutputModel } from '@jupyterlab/rendermime';
import type { OutputArea } from '@jupyterlab/outputarea';
import type { Kernel } from '@jupyterlab/services';
import { Panel, type Widget } from '@lumino/widgets';

const VIEW = 'application/vnd.jupyter.widget-view+json';
const STATE = 'application/vnd.jupyter.widget-state+json';

/** How the HTML of our own outputs begins a class. */
const OURS = /class="nbm[ -]/;

/** Follow the notebooks that are open and will be. */
export function showStaticForms(tracker: INotebookTracker): void {
  const follow = (panel: NotebookPanel): void => {
    void panel.context.ready.then(() => {
      if (!panel.isDisposed) {
        new StaleViews(panel);
      }
    });
  };
  tracker.forEach(follow);
  tracker.widgetAdded.connect((_, panel) => {
    follow(panel);
  });
}

/** Follows one notebook until it is closed. */
class StaleViews {
  constructor(private readonly _panel: NotebookPanel) {
    const { content, context } = _panel;
    const { sessionContext } = context;
    content.modelChanged.connect(this._follow);
    sessionContext.kernelChanged.connect(this._ask);
    sessionContext.connectionStatusChanged.connect(this._ask);
    sessionContext.statusChanged.connect(this._onStatus);
    _panel.disposed.connect(() => {
      content.modelChanged.disconnect(this._follow);
      sessionContext.kernelChanged.disconnect(this._ask);
      sessionContext.connectionStatusChanged.disconnect(this._ask);
      sessionContext.statusChanged.disconnect(this._onStatus);
    });
    this._follow();
    this._ask();
  }

  private readonly _follow = (): void => {
    // Lab's own slot, which makes the cells, was connected before.
    this._panel.content.model?.cells.changed.connect(this._judgeAll);
    this._judgeAll();
  };

  private readonly _onStatus = (_: unknown, status: Kernel.Status): void => {
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead') {
      this._known = new Set();
      this._judgeAll();
    }
  };

  /** Ask the kernel which models it has. */
  private readonly _ask = (): void => {
    const kernel = this._kernel;
    this._known = new Set();
    this._judgeAll();
    if (kernel?.connectionStatus !== 'connected') {
      return;
    }
    kernel.requestCommInfo({}).then(
      ({ content }) => {
        if (kernel === this._kernel && content.status === 'ok') {
          this._known = new Set(Object.keys(content.comms));
          this._judgeAll();
        }
      },
      () => undefined // the connection was lost: the next one asks again
    );
  };

  private readonly _judgeAll = (): void => {
    for (const cell of this._panel.content.widgets) {
      if (cell.model.type === 'code') {
        this._judge((cell as CodeCell).outputArea);
      }
    }
  };

  private _judge(area: OutputArea): void {
    if (!this._followed.has(area)) {
      this._followed.add(area);
      // After the area itself, which has rendered the change by then.
      area.model.changed.connect(() => {
        this._judge(area);
      });
    }
    for (let index = 0; index < Math.min(area.model.length, area.widgets.length); index++) {
      const item = area.widgets[index];
      const output = area.model.get(index);
      const view = item instanceof Panel ? viewIn(item, output, area) : null;
      if (item instanceof Panel && view) {
        this._set(item, view, output, area, this._lives(modelOf(output)));
      }
    }
  }

  /** Show a view, or the next form of its output in its place. */
  private _set(
    item: Panel,
    view: Widget,
    output: IOutputModel,
    area: OutputArea,
    lives: boolean
  ): void {
    const standIn = this._standIns.get(view);
    if (lives) {
      standIn?.dispose();
      this._standIns.delete(view);
      view.show();
    } else if (!standIn || standIn.isDisposed) {
      const data = { ...output.data };
      Reflect.deleteProperty(data, VIEW);
      const { rendermime } = area;
      const type = rendermime.preferredMimeType(data, output.trusted ? 'any' : 'ensure');
      if (type === undefined) {
        return;
      }
      const shown = rendermime.createRenderer(type);
      const { metadata, trusted } = output;
      void shown.renderModel(rendermime.createModel({ data, metadata, trusted }));
      shown.addClass('jp-OutputArea-output');
      item.addWidget(shown);
      view.hide();
      this._standIns.set(view, shown);
    }
  }

  /** Whether the model of a view is in the kernel, or in the notebook's own metadata. */
  private _lives(id: string): boolean {
    if (this._known.has(id) || this._kernel?.hasComm(id)) {
      return true;
    }
    const saved = this._panel.content.model?.getMetadata('widgets') as unknown;
    return at(at(at(saved, STATE), 'state'), id) !== undefined;
  }

  private get _kernel(): Kernel.IKernelConnection | null {
    return this._panel.sessionContext.session?.kernel ?? null;
  }

  /** The models that the kernel said it has. */
  private _known: ReadonlySet<string> = new Set();
  private readonly _followed = new WeakSet<OutputArea>();
  /** What is shown instead of a view. */
  private readonly _standIns = new WeakMap<Widget, Widget>();
}

/** The live view in an output of ours; `null` where there is none. */
function viewIn(item: Panel, output: IOutputModel, area: OutputArea): Widget | null {
  const { data, trusted } = output;
  const html = data['text/html'];
  if (!(VIEW in data) || typeof html !== 'string' || !OURS.test(html)) {
    return null;
  }
  const shown = area.rendermime.preferredMimeType(data, trusted ? 'any' : 'ensure');
  // The prompt comes first, then what was rendered.
  return shown === VIEW ? (item.widgets[1] ?? null) : null;
}

function modelOf(output: IOutputModel): string {
  const id = at(output.data[VIEW], 'model_id');
  return typeof id === 'string' ? id : '';
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Record<string, unknown>)[key]
    : undefined;
}
