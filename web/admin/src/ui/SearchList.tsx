import { SearchIcon } from 'lucide-react';
import { type KeyboardEvent, type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { classes } from './classes';
import { type ControlProps, TextInput } from './Field';
import styles from './SearchList.module.css';

interface SearchListProps<Item> {
  readonly label: string;
  readonly placeholder?: string;
  readonly text: string;
  readonly onTextChange: (text: string) => void;
  readonly items: readonly Item[];
  readonly itemId: (item: Item) => string;
  readonly renderItem: (item: Item) => ReactNode;
  readonly onChoose: (item: Item) => void;
  /** Shown instead of an empty list. */
  readonly empty: ReactNode;
  /** Attributes from the surrounding `Field`. */
  readonly control?: ControlProps;
  readonly autoFocus?: boolean;
  /** Omits the frame, as in the command palette. */
  readonly isPlain?: boolean;
  readonly inputClassName?: string | undefined;
  /** Returns the group of an item. The list shows it as a heading above the first item of the group. */
  readonly groupOf?: (item: Item) => string;
}

/** Text field with a list of results below, in the page instead of a popup (ARIA combobox with a listbox). */
export function SearchList<Item>(props: SearchListProps<Item>) {
  const { label, text, items, itemId, renderItem, onChoose, control, isPlain, groupOf } = props;
  const listId = useId();
  const list = useRef<HTMLUListElement>(null);
  const [active, setActive] = useState(0);
  const index = Math.min(active, items.length - 1);
  const optionId = (position: number) => `${listId}-${position}`;
  useEffect(() => {
    list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }, []);

  const moveTo = (position: number) => {
    const next = Math.max(0, Math.min(items.length - 1, position));
    setActive(next);
    document.getElementById(optionId(next))?.scrollIntoView({ block: 'nearest' });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    const item = items[index];
    if (event.key === 'ArrowDown') moveTo(index + 1);
    else if (event.key === 'ArrowUp') moveTo(index - 1);
    else if (event.key === 'Home' && event.ctrlKey) moveTo(0);
    else if (event.key === 'End' && event.ctrlKey) moveTo(items.length - 1);
    else if (event.key === 'Enter' && !event.metaKey && !event.ctrlKey && item !== undefined) onChoose(item);
    else return;
    event.preventDefault();
  };

  return (
    <div className={styles.box}>
      <TextInput
        {...control}
        {...(control ? {} : { 'aria-label': label })}
        {...(props.placeholder ? { placeholder: props.placeholder } : {})}
        boxClassName={props.inputClassName}
        icon={<SearchIcon size={16} aria-hidden />}
        role="combobox"
        aria-expanded={items.length > 0}
        aria-controls={listId}
        aria-autocomplete="list"
        aria-activedescendant={items.length > 0 ? optionId(index) : undefined}
        value={text}
        autoFocus={props.autoFocus ?? false}
        onChange={(event) => {
          setActive(0);
          props.onTextChange(event.target.value);
        }}
        onKeyDown={onKeyDown}
      />
      {items.length === 0 ? (
        <p className={styles.empty} role="status">
          {props.empty}
        </p>
      ) : (
        <ul
          ref={list}
          id={listId}
          className={classes(styles.list, isPlain && styles.plain)}
          role="listbox"
          aria-label={label}
        >
          {items.map((item, position) => (
            <Option
              key={itemId(item)}
              id={optionId(position)}
              heading={groupHeading(items, position, groupOf)}
              isActive={position === index}
              onHover={() => setActive(position)}
              onChoose={() => onChoose(item)}
            >
              {renderItem(item)}
            </Option>
          ))}
        </ul>
      )}
    </div>
  );
}

function groupHeading<Item>(
  items: readonly Item[],
  position: number,
  groupOf: ((item: Item) => string) | undefined,
): string | null {
  const item = items[position];
  if (!groupOf || item === undefined) return null;
  const previous = items[position - 1];
  const group = groupOf(item);
  return previous !== undefined && groupOf(previous) === group ? null : group;
}

interface OptionProps {
  readonly id: string;
  readonly heading: string | null;
  readonly isActive: boolean;
  readonly onHover: () => void;
  readonly onChoose: () => void;
  readonly children: ReactNode;
}

function Option({ id, heading, isActive, onHover, onChoose, children }: OptionProps) {
  return (
    <>
      {heading ? (
        <li className={styles.group} role="presentation">
          {heading}
        </li>
      ) : null}
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: the text field has the focus and handles the keys */}
      <li
        id={id}
        role="option"
        aria-selected={isActive}
        tabIndex={-1}
        className={styles.option}
        onMouseMove={onHover}
        // Keeps the focus in the text field.
        onMouseDown={(event) => event.preventDefault()}
        onClick={onChoose}
      >
        {children}
      </li>
    </>
  );
}

/** Text with the first occurrence of `part` marked, whatever its case. */
export function Marked({ text, part }: { readonly text: string; readonly part: string }) {
  const start = part === '' ? -1 : text.toLowerCase().indexOf(part.toLowerCase());
  if (start < 0) return text;
  const end = start + part.length;
  return (
    <>
      {text.slice(0, start)}
      <mark>{text.slice(start, end)}</mark>
      {text.slice(end)}
    </>
  );
}
