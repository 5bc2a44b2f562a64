/** Restores a deleted override. */

import { createOverride } from '../../api/commands';
import type { UserOverride } from '../../api/types';

/** Creates the override again with the same content. Fails if the user has another override of the flag by then. */
export async function recreateOverride(override: UserOverride): Promise<void> {
  const { user_id, flag_name, override_value, enabled, expires_at, reason } = override;
  const request = { flag_name, override_value, enabled, expires_at, reason };
  await createOverride(user_id, request, crypto.randomUUID());
}
