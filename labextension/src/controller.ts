import type { Actions } from './actions';
import { joinPath } from './format';
import type { Host } from './host';
import type { PanelModel } from './model';
import type { CheckReport } from './records';
import type { Tabs } from './tabs';
import * as verbs from './verbs';

/** Join the panel's state and the JupyterLab around it to what people can do. */
export function actionsOf(model: PanelModel, host: Host, tabs: Tabs): Actions {
  const save = (): Promise<void> => host.saveNotebook();
  const inProject = (path: string): string => joinPath(model.state.project?.path ?? '', path);
  const showCell: Actions['showCell'] = (notebook, cellId, cell) => {
    void host.showCell(inProject(notebook), cellId, cell);
  };
  const reload = ({ fixed }: CheckReport): Promise<readonly string[]> =>
    host.reload([...new Set(fixed.map(({ path }) => inProject(path)))]);
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
    setSweepOption: (name, value) => {
      model.setSweepOption(name, value);
    },
    run: pipeline => {
      void verbs.run(model, pipeline, save);
    },
    rerun: runId => {
      void verbs.rerun(model, runId);
    },
    sweep: () => {
      void verbs.sweep(model, save);
    },
    cancel: runId => {
      void verbs.cancel(model, runId);
    },
    select: runId => {
      model.select(runId);
    },
    clearSelection: () => {
      model.clearSelection();
    },
    compare: () => {
      tabs.compare(model.state.place.path, [...model.state.selected], false, showCell);
    },
    showChanges: runId => {
      tabs.compare(model.state.place.path, [runId], true, showCell);
    },
    openArtifact: (runId, name, attempt) => {
      void verbs.openArtifact(model, runId, name, attempt, data =>
        tabs.showFile(runId, name, attempt, data)
      );
    },
    check: () => {
      void verbs.check(model, save);
    },
    fix: () => {
      const fixable = model.state.check?.findings.filter(finding => finding.fixable) ?? [];
      void host.confirmFix(fixable).then(isSure => {
        if (isSure) {
          void verbs.fix(model, save, reload);
        }
      });
    },
    deploy: item => {
      void verbs.deploy(model, item);
    },
    undeploy: endpoint => {
      void host.confirmUndeploy(endpoint).then(isSure => {
        if (isSure) {
          void verbs.undeploy(model, endpoint);
        }
      });
    },
    init: name => {
      const { folder } = host.place();
      void verbs.init(model, name, made => host.openProject(folder, name, made));
    },
    copy: text => {
      host.copy(text);
    },
    showCell
  };
}
