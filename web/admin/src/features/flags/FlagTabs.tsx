import { useQuery } from '@tanstack/react-query';
import { CalendarClockIcon, FlagIcon, IdCardLanyardIcon, PlusIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { ADDRESSES } from '../../addresses';
import { flagsQuery, overridesQuery, schedulesQuery } from '../../api/queries';
import { useLock } from '../../session/session';
import { PageHead } from '../../shell/PageHead';
import { Subtitle, Tab, Tabs } from '../../shell/Tabs';
import { Button } from '../../ui/Button';
import { formatTotal } from '../../ui/Pager';
import { useEditorLink } from '../overrides/editorAddress';

/** Heading and tabs of the Feature Flags pages. */
export function FeatureFlagsHead({ subtitle, actions }: { readonly subtitle?: string; readonly actions?: ReactNode }) {
  const flags = useQuery(flagsQuery({ archived: false, limit: 1 }));
  const schedules = useQuery(schedulesQuery(null, { status: 'pending', limit: 1 }));
  const overrides = useQuery(overridesQuery({ limit: 1 }));
  return (
    <>
      <PageHead title="Feature Flags" actions={actions ?? <AddOverrideButton />} />
      <Tabs label="Feature flags">
        <Tab
          to={ADDRESSES.flags}
          activeOptions={{ exact: true, includeSearch: false }}
          Icon={FlagIcon}
          count={formatTotal(flags.data)}
        >
          Flags
        </Tab>
        <Tab
          to={ADDRESSES.scheduledChanges}
          activeOptions={{ includeSearch: false }}
          Icon={CalendarClockIcon}
          count={formatTotal(schedules.data)}
        >
          Scheduled Changes
        </Tab>
        <Tab
          to={ADDRESSES.userOverrides}
          activeOptions={{ includeSearch: false }}
          Icon={IdCardLanyardIcon}
          count={formatTotal(overrides.data)}
        >
          User Overrides
        </Tab>
      </Tabs>
      {subtitle ? <Subtitle>{subtitle}</Subtitle> : null}
    </>
  );
}

/** Button that opens the override editor. `flag` and `user` are preselected. */
export function AddOverrideButton(props: { readonly flag?: string; readonly user?: string; readonly label?: string }) {
  const { openNew } = useEditorLink();
  const lockedReason = useLock('changeOverrides');
  const target = { ...(props.flag && { flag: props.flag }), ...(props.user && { user: props.user }) };
  const label = props.label ?? 'Add override';
  return (
    <>
      <Button variant="primary" className="wide-only" lockedReason={lockedReason} onClick={() => openNew(target)}>
        <PlusIcon size={16} aria-hidden />
        {label}
      </Button>
      <Button
        variant="primary"
        iconOnly
        className="narrow-only"
        aria-label={label}
        lockedReason={lockedReason}
        onClick={() => openNew(target)}
      >
        <PlusIcon size={16} aria-hidden />
      </Button>
    </>
  );
}
