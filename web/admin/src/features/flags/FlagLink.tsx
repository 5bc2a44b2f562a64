import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { ADDRESSES } from '../../addresses';
import { flagQuery } from '../../api/queries';
import { FlagLabel } from '../../values/parts';

/** Types of flags never change, so the definition need not be read again. */
const TYPE_STALE_TIME = Number.POSITIVE_INFINITY;

/** Link to a flag of which only the name is known. */
export function FlagLink({ name }: { readonly name: string }) {
  const { data } = useQuery({ ...flagQuery(name), staleTime: TYPE_STALE_TIME, retry: false });
  return (
    <FlagLabel name={name} type={data?.resource.flag_type}>
      <Link to={ADDRESSES.flag} params={{ flag: name }}>
        {name}
      </Link>
    </FlagLabel>
  );
}
