import { useQuery } from '@tanstack/react-query';
import { useMemo, useState } from 'react';
import { flagsQuery, userFlagsQuery } from '../../api/queries';
import { type FlagType, isReadable, type UserFlagResult } from '../../api/types';
import { Button } from '../../ui/Button';
import { Field } from '../../ui/Field';
import { Marked, SearchList } from '../../ui/SearchList';
import { FlagLabel, LayerChip, Value } from '../../values/parts';
import styles from './editor.module.css';

/** Maximum number of flags in the list. A search finds the others. */
const MAX_SHOWN = 100;

interface FlagPickerProps {
  readonly userId: string | undefined;
  readonly flag: string | undefined;
  readonly type: FlagType | undefined;
  readonly result: UserFlagResult | undefined;
  readonly onChoose: (flag: string | null) => void;
  readonly isFixed: boolean;
}

interface Candidate {
  readonly name: string;
  readonly type: FlagType;
  readonly result: UserFlagResult | undefined;
}

/** Search field for a flag. Lists each flag with its current value for the user and the layer that supplies it. */
export function FlagPicker({ userId, flag, type, result, onChoose, isFixed }: FlagPickerProps) {
  const [text, setText] = useState('');
  const ofUser = useQuery({ ...userFlagsQuery(userId ?? ''), enabled: userId !== undefined && !flag });
  const all = useQuery({ ...flagsQuery({ archived: false, limit: 200 }), enabled: userId === undefined && !flag });
  const candidates = useMemo<Candidate[]>(() => {
    if (userId !== undefined) {
      return Object.entries(ofUser.data?.flags ?? {})
        .map(([name, value]) => ({ name, type: value.flag_type, result: value }))
        .sort((a, b) => a.name.localeCompare(b.name));
    }
    return (all.data?.items ?? [])
      .filter(isReadable)
      .map((item) => ({ name: item.name, type: item.flag_type, result: undefined }));
  }, [userId, ofUser.data, all.data]);

  if (flag) {
    return (
      <Field label="Flag">
        {({ id }) => (
          <div className={styles.picked} id={id}>
            <FlagLabel name={flag} type={type} />
            <span className="grow" />
            {result ? (
              <>
                <Value value={result.value} className={styles.optionValue} />
                <LayerChip layer={result.source} />
              </>
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
  const term = text.trim().toLowerCase();
  const matches = candidates.filter(({ name }) => name.toLowerCase().includes(term));
  const isLoading = ofUser.isFetching || all.isFetching;
  return (
    <Field
      label="Flag"
      aside={candidates.length > 0 ? `${matches.length} of ${candidates.length} match` : null}
      hint={matches.length > MAX_SHOWN ? `The first ${MAX_SHOWN} are shown. Enter a part of the name.` : null}
    >
      {(control) => (
        <SearchList
          control={control}
          label="Flags"
          placeholder="Name of the flag"
          text={text}
          onTextChange={setText}
          items={matches.slice(0, MAX_SHOWN)}
          itemId={({ name }) => name}
          onChoose={({ name }) => {
            setText('');
            onChoose(name);
          }}
          empty={isLoading ? 'Loading…' : term === '' ? 'There are no flags.' : `No flag matches “${text.trim()}”.`}
          renderItem={(item) => (
            <>
              <FlagLabel name={item.name} type={item.type}>
                <Marked text={item.name} part={term} />
              </FlagLabel>
              {item.result ? (
                <>
                  <Value value={item.result.value} className={styles.optionValue} />
                  <span className={styles.optionLayer}>
                    <LayerChip layer={item.result.source} />
                  </span>
                </>
              ) : null}
            </>
          )}
        />
      )}
    </Field>
  );
}
