import { LabIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Status } from './records';

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

/** A page that has been filled in: an executed notebook. */
export const reportIcon = new LabIcon({
  name: 'nbmlops:report',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3 jp-icon-selectable" fill="#616161" d="M14 2H6a2 2 0 0 0-2 2v16a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2V8zm4 18H6V4h7v5h5zM8 12h8v1.6H8zm0 3.4h8V17H8z"/>
</svg>`
});

/** How something stands: the shape tells it without its colour. */
export type Tone = 'good' | 'bad' | 'warning' | 'active' | 'quiet' | 'cached';

/** How a status looks. */
export const TONES: Readonly<Record<Status, Tone>> = {
  pending: 'active',
  running: 'active',
  succeeded: 'good',
  failed: 'bad',
  cancelled: 'quiet',
  lost: 'warning'
};

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
  cached: (
    <g {...STROKE}>
      <path d="M3.2 4.6A6 6 0 1 1 2 8.4" />
      <path d="M2.6 1.6v3.6h3.6" />
    </g>
  ),
  quiet: (
    <g {...STROKE}>
      <circle cx="8" cy="8" r="6.6" />
      <path d="M5 8h6" />
    </g>
  )
};
