import type { ReactNode } from 'react';
import type { LayerName } from '../api/types';
import { classes } from '../ui/classes';
import { layerInfo } from '../values/parts';
import styles from './ladder.module.css';

/** `decides`: the layer supplies the value. `passed`: it does not apply. `hidden`: a higher layer decides. */
export type RungState = 'decides' | 'passed' | 'hidden';

export interface Rung {
  readonly id: string;
  readonly layer: LayerName;
  readonly state: RungState;
  readonly name: ReactNode;
  /** What the layer serves, or why it does not. */
  readonly end: ReactNode;
  readonly why: ReactNode;
}

interface LadderProps {
  readonly label: string;
  readonly rungs: readonly Rung[];
  /** Whether the ladder is inside a panel, which has another background than the page. */
  readonly onSurface?: boolean;
  /** Whether to show the evaluation order without a user. The layout is then wide, and no layer decides. */
  readonly isOverview?: boolean;
}

/** List of the evaluation layers of a flag, the highest first. The first layer that applies decides the value. */
export function Ladder({ label, rungs, onSurface, isOverview }: LadderProps) {
  return (
    <ol
      className={classes(styles.ladder, onSurface && styles.onSurface, isOverview && styles.overview)}
      aria-label={label}
    >
      {rungs.map((rung) => (
        <RungItem key={rung.id} rung={rung} />
      ))}
    </ol>
  );
}

function RungItem({ rung }: { readonly rung: Rung }) {
  const { Icon } = layerInfo(rung.layer);
  const state = rung.state === 'passed' ? null : styles[rung.state];
  return (
    <li className={classes(styles.rung, state, `layer-${rung.layer}`)}>
      <span className={styles.mark}>
        <Icon size={14} aria-hidden />
      </span>
      <span className={styles.name}>
        {rung.name}
        {rung.state === 'decides' ? <span className={styles.decidesWord}>Decides</span> : null}
      </span>
      <span className={styles.end}>{rung.end}</span>
      <span className={styles.why}>{rung.why}</span>
    </li>
  );
}
