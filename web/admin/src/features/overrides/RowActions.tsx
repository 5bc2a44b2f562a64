import { useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import {
  CircleDashedIcon,
  CircleHelpIcon,
  EllipsisIcon,
  LinkIcon,
  PencilIcon,
  PlayIcon,
  Trash2Icon,
  UserIcon,
} from 'lucide-react';
import { ADDRESSES } from '../../addresses';
import { deleteOverride, patchOverride } from '../../api/commands';
import { keys } from '../../api/keys';
import type { UserOverride } from '../../api/types';
import { useLock } from '../../session/session';
import { Button } from '../../ui/Button';
import { Menu, MenuItem, MenuSeparator } from '../../ui/Menu';
import { showDone, showError } from '../../ui/toast';
import { shareableAddress, useEditorLink } from './editorAddress';
import { recreateOverride } from './undo';

/** Returns the actions on one override that need no form. After each action, a message offers Undo. */
export function useOverrideActions() {
  const queryClient = useQueryClient();
  const refresh = () => {
    void queryClient.invalidateQueries({ queryKey: keys.overrides });
    void queryClient.invalidateQueries({ queryKey: keys.allUserFlags });
    void queryClient.invalidateQueries({ queryKey: keys.allExplanations });
  };
  const setEnabled = async (override: UserOverride, enabled: boolean) => {
    try {
      await patchOverride(override.user_id, override.flag_name, { enabled });
      refresh();
      showDone(`Override ${enabled ? 'enabled' : 'disabled'}`, async () => {
        await patchOverride(override.user_id, override.flag_name, { enabled: !enabled });
        refresh();
      });
    } catch (error) {
      showError(error);
    }
  };
  const remove = async (override: UserOverride) => {
    try {
      await deleteOverride(override.user_id, override.flag_name);
      refresh();
      showDone(`Override of ${override.flag_name} deleted`, async () => {
        await recreateOverride(override);
        refresh();
      });
    } catch (error) {
      showError(error);
    }
  };
  return { setEnabled, remove };
}

export function RowActions({ override }: { readonly override: UserOverride }) {
  const navigate = useNavigate();
  const { openExisting } = useEditorLink();
  const { setEnabled, remove } = useOverrideActions();
  const lockedReason = useLock('changeOverrides');
  const { user_id, flag_name, enabled } = override;
  const label = `Actions for ${override.user_label}, ${flag_name}`;
  return (
    <Menu
      trigger={
        <Button small iconOnly variant="quiet" aria-label={label}>
          <EllipsisIcon size={16} aria-hidden />
        </Button>
      }
    >
      <MenuItem icon={<PencilIcon size={16} aria-hidden />} onClick={() => openExisting(user_id, flag_name)}>
        {lockedReason ? 'Show' : 'Edit'}
      </MenuItem>
      <MenuItem
        icon={enabled ? <CircleDashedIcon size={16} aria-hidden /> : <PlayIcon size={16} aria-hidden />}
        lockedReason={lockedReason}
        onClick={() => void setEnabled(override, !enabled)}
      >
        {enabled ? 'Disable' : 'Enable'}
      </MenuItem>
      <MenuItem
        icon={<CircleHelpIcon size={16} aria-hidden />}
        onClick={() => void navigate({ to: ADDRESSES.user, params: { id: user_id }, search: { why: flag_name } })}
      >
        Why this value?
      </MenuItem>
      <MenuItem
        icon={<UserIcon size={16} aria-hidden />}
        onClick={() => void navigate({ to: ADDRESSES.user, params: { id: user_id } })}
      >
        Open user
      </MenuItem>
      <MenuItem
        icon={<LinkIcon size={16} aria-hidden />}
        onClick={() => {
          const address = shareableAddress({ kind: 'existing', user: user_id, flag: flag_name });
          navigator.clipboard.writeText(address).then(() => showDone('Link copied'), showError);
        }}
      >
        Copy link
      </MenuItem>
      <MenuSeparator />
      <MenuItem
        icon={<Trash2Icon size={16} aria-hidden />}
        isDangerous
        lockedReason={lockedReason}
        onClick={() => void remove(override)}
      >
        Delete
      </MenuItem>
    </Menu>
  );
}
