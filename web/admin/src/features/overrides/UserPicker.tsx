import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { userQuery, usersQuery } from '../../api/queries';
import type { User } from '../../api/types';
import { Initials, PersonLabel } from '../../people/PersonLabel';
import { personName } from '../../people/people';
import { Button } from '../../ui/Button';
import { Field } from '../../ui/Field';
import { countOf } from '../../ui/Pager';
import { SearchList } from '../../ui/SearchList';
import { CountBadge } from '../../values/parts';
import styles from './editor.module.css';

const SEARCH_DELAY = 150;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const RECENT_KEY = 'feature-flags:recent-users';
const MAX_RECENT = 5;

/** Returns the last value that did not change for `delay` milliseconds. */
export function useDebounced<Value>(value: Value, delay: number): Value {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), delay);
    return () => clearTimeout(timer);
  }, [value, delay]);
  return settled;
}

function loadRecent(): User[] {
  try {
    const stored: unknown = JSON.parse(sessionStorage.getItem(RECENT_KEY) ?? '[]');
    return Array.isArray(stored) ? stored : [];
  } catch {
    return [];
  }
}

function rememberUser(user: User): void {
  try {
    const others = loadRecent().filter(({ id }) => id !== user.id);
    sessionStorage.setItem(RECENT_KEY, JSON.stringify([user, ...others].slice(0, MAX_RECENT)));
  } catch {
    // The browser denies storage, so the picker does not remember recent users.
  }
}

interface UserPickerProps {
  readonly user: User | undefined;
  readonly onChoose: (user: User | null) => void;
  /** Whether the user is preselected and cannot be changed. */
  readonly isFixed: boolean;
}

/** Search field for a user: by part of the e-mail, name or external id, or by id. */
export function UserPicker({ user, onChoose, isFixed }: UserPickerProps) {
  const [text, setText] = useState('');
  const term = useDebounced(text.trim(), SEARCH_DELAY);
  const isId = UUID.test(term);
  const found = useQuery({ ...usersQuery({ search: term, limit: 20 }), enabled: term !== '' && !isId && !user });
  const byId = useQuery({ ...userQuery(term), enabled: isId && !user, retry: false });

  if (user) {
    return (
      <Field label="User">
        {({ id }) => (
          <div className={styles.picked} id={id}>
            <Initials person={user} />
            <PersonLabel person={user} />
            {user.active ? null : <span className="muted nowrap">inactive</span>}
            <span className="grow" />
            {user.override_count > 0 ? (
              <CountBadge layer="override" count={user.override_count} noun="overrides" />
            ) : null}
            {isFixed ? null : (
              <Button small onClick={() => onChoose(null)}>
                Change
              </Button>
            )}
          </div>
        )}
      </Field>
    );
  }
  const items = isId ? (byId.data ? [byId.data.resource] : []) : term === '' ? loadRecent() : (found.data?.items ?? []);
  const choose = (chosen: User) => {
    rememberUser(chosen);
    setText('');
    onChoose(chosen);
  };
  return (
    <Field
      label="User"
      aside={term !== '' && found.data ? countOf(found.data.total, 'match', 'matches') : null}
      hint={term.length > 0 && term.length < 3 ? 'With one or two characters, the search finds beginnings only.' : null}
    >
      {(control) => (
        <SearchList
          control={control}
          label="Users"
          placeholder="E-mail, name or external id"
          text={text}
          onTextChange={setText}
          items={items}
          itemId={({ id }) => id}
          onChoose={choose}
          autoFocus
          empty={
            term === ''
              ? 'Enter a part of the e-mail address, name or external id.'
              : found.isFetching || byId.isFetching || term !== text.trim()
                ? 'Searching…'
                : `No user matches “${term}”.`
          }
          renderItem={(item) => (
            <>
              <Initials person={item} />
              <PersonLabel person={item} mark={term} />
              <span className="grow" />
              {item.active ? null : <span className="muted nowrap">inactive</span>}
              {item.override_count > 0 ? (
                <CountBadge layer="override" count={item.override_count} noun={`overrides of ${personName(item)}`} />
              ) : null}
            </>
          )}
        />
      )}
    </Field>
  );
}
