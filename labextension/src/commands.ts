import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import { refreshIcon } from '@jupyterlab/ui-components';

import type { Actions } from './actions';
import { pipelineIcon } from './icons';

/** The commands that the palette, the notebook's toolbar and shortcuts can call. */
export const CommandIDs = {
  open: 'nbmlops:open',
  runNotebook: 'nbmlops:run-notebook',
  refresh: 'nbmlops:refresh'
} as const;

/** Add the commands to the application, and to the palette if there is one. */
export function addCommands(
  app: JupyterFrontEnd,
  palette: ICommandPalette | null,
  panelId: string,
  hasNotebook: () => boolean,
  actions: Actions
): void {
  const open = (): void => {
    app.shell.activateById(panelId);
  };
  app.commands.addCommand(CommandIDs.open, {
    label: 'Show the nbmlops Panel',
    caption: 'Show runs, models and deployments',
    icon: pipelineIcon,
    execute: open
  });
  app.commands.addCommand(CommandIDs.runNotebook, {
    label: 'Run Notebook as an nbmlops Job',
    caption: 'Save this notebook, take a snapshot and run it as an nbmlops job',
    icon: pipelineIcon,
    isEnabled: hasNotebook,
    execute: () => {
      open();
      actions.run(null);
    }
  });
  app.commands.addCommand(CommandIDs.refresh, {
    label: 'Refresh the nbmlops Panel',
    icon: refreshIcon,
    execute: actions.refresh
  });
  for (const command of Object.values(CommandIDs)) {
    palette?.addItem({ command, category: 'nbmlops' });
  }
}
