import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { INotebookTracker } from '@jupyterlab/notebook';

import { Api } from './api';
import { addCommands } from './commands';
import { actionsOf } from './controller';
import { Host } from './host';
import { PanelModel } from './model';
import { NbmlopsPanel } from './panel';
import { showStaticForms } from './staleviews';
import { Tabs } from './tabs';

/** The side panel with runs, models and deployments, and the commands that go with it. */
const panel: JupyterFrontEndPlugin<void> = {
  id: 'nbmlops:panel',
  description: 'Runs, models and deployments next to the notebook.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [IDefaultFileBrowser, ICommandPalette, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    browser: IDefaultFileBrowser | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null
  ): void => {
    const host = new Host(app, tracker, browser);
    const api = new Api(app.serviceManager.serverSettings);
    const model = new PanelModel(api);
    const actions = actionsOf(model, host, new Tabs(app.shell, api));
    const widget = new NbmlopsPanel(model, actions);
    const unfollow = host.follow(
      () => {
        model.setPlace(host.place());
      },
      () => {
        model.refresh();
      }
    );
    widget.disposed.connect(unfollow);
    addCommands(app, palette, widget.id, () => tracker.currentWidget !== null, actions);
    app.shell.add(widget, 'left', { rank: 550, type: 'nbmlops' });
    restorer?.add(widget, widget.id);
  }
};

/** What our widgets leave behind is seen where their kernel is gone. */
const staticForms: JupyterFrontEndPlugin<void> = {
  id: 'nbmlops:static-forms',
  description: 'Shows the static form of nbmlops widgets whose kernel is gone.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_: JupyterFrontEnd, tracker: INotebookTracker): void => {
    showStaticForms(tracker);
  }
};

export default [panel, staticForms];
