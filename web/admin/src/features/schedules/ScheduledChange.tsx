import { useQuery } from '@tanstack/react-query';
import { ArrowRightIcon } from 'lucide-react';
import { readableFlagQuery } from '../../api/queries';
import type { Flag, ScheduledChange, Serve } from '../../api/types';
import { Served } from '../../values/Served';
import styles from './schedules.module.css';

/** Effect of a scheduled change: the values before and after if it is pending, otherwise the value that it set. */
export function ChangeText({ change, flag }: { readonly change: ScheduledChange; readonly flag?: Flag | undefined }) {
  const loaded = useQuery({ ...readableFlagQuery(change.flag_name), enabled: flag === undefined });
  const definition = flag ?? loaded.data?.resource;
  const { preview, serve, enabled } = change;
  if (!definition) return <span className="muted">{loaded.isError ? 'The flag cannot be read' : '…'}</span>;
  const before = preview && serve ? weightsServe(preview.before.weights) : null;
  return (
    <span className={styles.line}>
      {before ? (
        <>
          <Served serve={before} variants={definition.variants} withBar={false} />
          <ArrowRightIcon size={14} aria-hidden />
          <span className="visually-hidden">becomes</span>
        </>
      ) : null}
      {serve ? <Served serve={serve} variants={definition.variants} withBar={false} /> : null}
      {enabled === null ? null : <span>{enabled ? 'switched on' : 'switched off'}</span>}
    </span>
  );
}

function weightsServe(weights: Record<string, number>): Serve {
  return { weights };
}
