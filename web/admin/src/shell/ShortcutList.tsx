import { usePreferences } from '../preferences/preferences';
import { Key } from '../ui/Button';
import { Dialog } from '../ui/Overlay';
import { MODIFIER } from './PageHead';
import styles from './ShortcutList.module.css';

const SHORTCUTS: readonly (readonly [action: string, keys: readonly string[]])[] = [
  ['Search flags, users and actions', [`${MODIFIER}K`]],
  ['Search in this list', ['/']],
  ['Override a flag for a user', ['c']],
  ['Go to flags', ['g', 'f']],
  ['Go to scheduled changes', ['g', 's']],
  ['Go to user overrides', ['g', 'o']],
  ['Go to users', ['g', 'u']],
  ['Go to my flags', ['g', 'm']],
  ['Next, previous row', ['j', 'k']],
  ['Select row, select range', ['x', 'Shift x']],
  ['Open row', ['Enter']],
  ['Edit row', ['e']],
  ['Save form', [`${MODIFIER}↵`]],
  ['Close', ['Esc']],
  ['Show this list', ['?']],
];

export function ShortcutList({ onClose }: { readonly onClose: () => void }) {
  const { letterShortcuts } = usePreferences();
  return (
    <Dialog isOpen onClose={onClose} title="Keyboard shortcuts">
      <dl className={styles.list}>
        {SHORTCUTS.map(([action, keys]) => (
          <ShortcutRow key={action} action={action} keys={keys} />
        ))}
      </dl>
      <p className="muted">
        {letterShortcuts ? 'You can switch single letters off in your profile.' : 'Single letters are switched off.'}
      </p>
    </Dialog>
  );
}

function ShortcutRow({ action, keys }: { readonly action: string; readonly keys: readonly string[] }) {
  return (
    <>
      <dt>{action}</dt>
      <dd>
        {keys.map((key) => (
          <Key key={key}>{key}</Key>
        ))}
      </dd>
    </>
  );
}
