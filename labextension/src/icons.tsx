import { LabIcon } from '@jupyterlab/ui-components';
import React from 'react';

/** The panel's icon: a notebook with a pipeline on its page. */
export const pipelineIcon = new LabIcon({
  name: 'nbmlops:pipeline',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3 jp-icon-selectable" fill="#616161">
    <path d="M18 3H7a2 2 0 0 0-2 2v2H3v2h2v2H3v2h2v2H3v2h2v2a2 2 0 0 0 2 2h11a2 2 0 0 0 2-2V5a2 2 0 0 0-2-2zm0 16H7V5h11z"/>
    <circle cx="9.7" cy="15.6" r="1.9"/>
    <circle cx="12.5" cy="11.2" r="1.6"/>
    <circle cx="15.5" cy="8.2" r="1.9"/>
  </g>
  <path class="jp-icon3 jp-icon-selectable" stroke="#616161" stroke-width="1.3" style="fill:none" d="M9.7 15.6L12.5 11.2L15.5 8.2"/>
</svg>`
});

/** How something stands: the shape tells it without its colour. */
export type Tone = 'good' | 'bad' | 'warning' | 'active' | 'quiet';

/** A mark for how something stands; the text next to it says the same. */
export function Mark({ tone }: { readonly tone: Tone }): React.JSX.Element {
  return (
    <svg
      className={`jp-nbmlops-mark jp-nbmlops-mod-${tone}`}
      viewBox="0 0 16 16"
      width="14"
      height="14"
      aria-hidden="true"
      focusable="false"
    >
      {SHAPES[tone]}
    </svg>
  );
}

const STROKE = { fill: 'none', stroke: 'currentColor', strokeWidth: 1.8 } as const;

const SHAPES: Readonly<Record<Tone, React.JSX.Element>> = {
  good: (
    <g {...STROKE}>
      <circle cx="8" cy="8" r="6.6" />
      <path d="M5 8.2l2.2 2.2L11.2 6" />
    </g>
  ),
  bad: (
    <g {...STROKE}>
      <circle cx="8" cy="8" r="6.6" />
      <path d="M5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6" />
    </g>
  ),
  warning: (
    <g {...STROKE}>
      <path d="M8 1.8L15 14H1z" strokeLinejoin="round" />
      <path d="M8 6v4M8 11.2v1.6" />
    </g>
  ),
  active: (
    <g {...STROKE}>
      <circle cx="8" cy="8" r="6.6" opacity="0.25" />
      <path d="M8 1.4a6.6 6.6 0 0 1 6.6 6.6" className="jp-nbmlops-spinner" />
    </g>
  ),
  quiet: (
    <g {...STROKE}>
      <circle cx="8" cy="8" r="6.6" />
      <path d="M5 8h6" />
    </g>
  )
};
