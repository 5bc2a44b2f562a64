import { useQuery } from '@tanstack/react-query';
import { auditQuery } from '../../api/queries';
import type { UserOverride } from '../../api/types';
import { When } from '../../time/When';
import { Button } from '../../ui/Button';
import { Notice } from '../../ui/States';
import { Value } from '../../values/parts';
import type { FieldName, Fields } from './draft';
import { fieldsOf } from './draft';
import styles from './editor.module.css';
import type { Conflict, ConflictChoice } from './useEditor';

const FIELD_LABELS: Record<FieldName, string> = {
  override_value: 'Value',
  expires_at: 'Expires',
  reason: 'Reason',
  enabled: 'Status',
};

interface ConflictNoticeProps {
  readonly conflict: Conflict;
  readonly userId: string;
  readonly flag: string;
  readonly mine: Fields | null;
  readonly onChoose: (choice: ConflictChoice) => void;
}

/** Notice that another person changed the override. Compares both versions and offers the possible next steps. */
export function ConflictNotice({ conflict, userId, flag, mine, onChoose }: ConflictNoticeProps) {
  const lastChange = useLastChange(userId, flag);
  if (conflict.kind === 'gone') {
    return (
      <Notice kind="error" role="alert" title="The override no longer exists">
        {lastChange}
        <div className={styles.buttons}>
          <Button small onClick={() => onChoose('recreate')}>
            Create again with these values
          </Button>
          <Button small variant="quiet" onClick={() => onChoose('keepTheirs')}>
            Discard
          </Button>
        </div>
      </Notice>
    );
  }
  const theirs = fieldsOf(conflict.theirs.resource);
  if (conflict.kind === 'exists') {
    return (
      <Notice role="alert" title="There is an override of this flag for this user already">
        {lastChange}
        <Comparison names={['override_value', 'expires_at', 'reason']} theirs={theirs} mine={mine} />
        <div className={styles.buttons}>
          <Button small onClick={() => onChoose('replace')}>
            Replace it
          </Button>
          <Button small onClick={() => onChoose('edit')}>
            Edit it with my values
          </Button>
          <Button small variant="quiet" onClick={() => onChoose('keepTheirs')}>
            Keep it
          </Button>
        </div>
      </Notice>
    );
  }
  return (
    <Notice role="alert" title="The override was changed meanwhile">
      {lastChange} Choose which version to keep. Nothing has been saved.
      {conflict.fields.map((name) => (
        <div key={name}>
          <Comparison names={[name]} theirs={theirs} mine={mine} />
          <div className={styles.buttons}>
            <Button small onClick={() => onChoose({ field: name, side: 'mine' })}>
              Keep mine
            </Button>
            <Button small onClick={() => onChoose({ field: name, side: 'theirs' })}>
              Use theirs
            </Button>
          </div>
        </div>
      ))}
    </Notice>
  );
}

/** Returns who changed the override last, and when. */
function useLastChange(user_id: string, flag_name: string) {
  const { data } = useQuery({ ...auditQuery({ user_id, flag_name, limit: 1 }), staleTime: 0 });
  const entry = data?.items[0];
  if (!entry) return null;
  return (
    <>
      {entry.actor.label ?? entry.actor.id}, <When instant={entry.at} />.
    </>
  );
}

/** Notice that the form now contains changes by another person. */
export function MergedNotice({ override }: { readonly override: UserOverride }) {
  const lastChange = useLastChange(override.user_id, override.flag_name);
  return (
    <Notice kind="info" role="status" title="Changes by another person were taken over">
      {lastChange} Fields that you have not changed show the new state. Check the form, then save.
    </Notice>
  );
}

function Comparison(props: {
  readonly names: readonly FieldName[];
  readonly theirs: Fields;
  readonly mine: Fields | null;
}) {
  const { names, theirs, mine } = props;
  return (
    <dl className={styles.conflict}>
      <span />
      <span className={styles.conflictHead}>Theirs</span>
      <span className={styles.conflictHead}>Mine</span>
      {names.map((name) => (
        <ComparisonRow key={name} name={name} theirs={theirs} mine={mine} />
      ))}
    </dl>
  );
}

function ComparisonRow(props: { readonly name: FieldName; readonly theirs: Fields; readonly mine: Fields | null }) {
  const { name, theirs, mine } = props;
  return (
    <>
      <dt>{FIELD_LABELS[name]}</dt>
      <dd>
        <FieldText name={name} fields={theirs} />
      </dd>
      <dd>{mine ? <FieldText name={name} fields={mine} /> : '–'}</dd>
    </>
  );
}

function FieldText({ name, fields }: { readonly name: FieldName; readonly fields: Fields }) {
  switch (name) {
    case 'override_value':
      return <Value value={fields.override_value} />;
    case 'expires_at':
      return fields.expires_at === null ? 'Never' : <When instant={fields.expires_at} withRelative={false} />;
    case 'reason':
      return fields.reason ?? '–';
    case 'enabled':
      return fields.enabled ? 'Enabled' : 'Disabled';
  }
}
