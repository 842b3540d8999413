import type { Actions } from './actions';
import { joinPath } from './format';
import type { Host } from './host';
import type { PanelModel } from './model';

/** Join the panel's state and the JupyterLab around it to what people can do. */
export function actionsOf(model: PanelModel, host: Host): Actions {
  return {
    refresh: () => {
      model.reload();
    },
    toggle: key => {
      model.toggle(key);
    },
    dismiss: key => {
      model.dismiss(key);
    },
    setParameter: (name, value) => {
      model.setParameter(name, value);
    },
    run: pipeline => {
      void model.run(pipeline, () => host.saveNotebook());
    },
    cancel: runId => {
      void model.cancel(runId);
    },
    deploy: item => {
      void model.deploy(item);
    },
    undeploy: endpoint => {
      void host.confirmUndeploy(endpoint).then(isSure => {
        if (isSure) {
          void model.undeploy(endpoint);
        }
      });
    },
    init: name => {
      const { folder } = host.place();
      void model.init(name, made => host.openProject(folder, name, made));
    },
    copy: text => {
      host.copy(text);
    },
    showCell: (notebook, cellId, cell) => {
      const project = model.state.project?.path ?? '';
      void host.showCell(joinPath(project, notebook), cellId, cell);
    }
  };
}
