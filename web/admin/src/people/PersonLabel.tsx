import { useQuery } from '@tanstack/react-query';
import { tokenNameQuery, userNameQuery } from '../api/queries';
import { classes } from '../ui/classes';
import { Marked } from '../ui/SearchList';
import { initials, type Person, personDetail, personName } from './people';
import styles from './people.module.css';

export function Initials({ person, isLarge }: { readonly person: Person; readonly isLarge?: boolean }) {
  return (
    <span className={classes(styles.initials, isLarge && styles.large)} aria-hidden>
      {initials(person)}
    </span>
  );
}

/** Name and e-mail of a person in one line. `mark` is the text that was searched for. */
export function PersonLabel({ person, mark = '' }: { readonly person: Person; readonly mark?: string }) {
  const detail = personDetail(person);
  return (
    <span className="cut" title={detail ? `${personName(person)} ${detail}` : personName(person)}>
      <span className="strong">
        <Marked text={personName(person)} part={mark} />
      </span>
      {detail ? (
        <span className="muted">
          {' '}
          <Marked text={detail} part={mark} />
        </span>
      ) : null}
    </span>
  );
}

/** Name of a user of whom only the id and perhaps the label are known. */
export function UserName({ id, label }: { readonly id: string; readonly label?: string }) {
  const { data } = useQuery(userNameQuery(id));
  return <PersonLabel person={data?.resource ?? { user_label: label ?? null }} />;
}

/** Name of the author of a change: `user:<id>`, `token:<id>` or `system:<name>`. */
export function useActorName(actor: string): string {
  const [kind, id = ''] = actor.split(/:(.*)/s);
  const user = useQuery({ ...userNameQuery(id), enabled: kind === 'user' });
  const token = useQuery({ ...tokenNameQuery(id), enabled: kind === 'token' });
  if (kind === 'system') return id;
  if (kind === 'token') return token.data?.name ?? 'API token';
  if (user.data) return personName(user.data.resource);
  return user.isError ? 'Deleted user' : '…';
}

export function ActorName({ actor }: { readonly actor: string }) {
  const name = useActorName(actor);
  return <span title={name}>{name}</span>;
}
