/** Changes through the API. Each function sends one request. */

import { body, client, send, type Tagged, tagged } from './client';
import type {
  AnyFlag,
  BulkRequest,
  BulkResponse,
  CreateOverride,
  CreateUser,
  Flag,
  Identity,
  PatchFlag,
  PatchOverride,
  PatchUser,
  PutOverride,
  User,
  UserOverride,
} from './types';

const OVERRIDE = '/api/admin/users/{user_id}/flag-overrides/{flag_name}';

function overridePath(user_id: string, flag_name: string) {
  return { path: { user_id, flag_name } };
}

export function signIn(email: string, password: string): Promise<Identity> {
  return body(client.POST('/api/auth/login', { body: { email, password } }));
}

export async function signOut(): Promise<void> {
  await send(client.POST('/api/auth/logout'));
}

export async function signOutEverywhere(): Promise<void> {
  await send(client.POST('/api/auth/logout-all'));
}

export async function changePassword(current_password: string, new_password: string): Promise<void> {
  await send(client.POST('/api/auth/password', { body: { current_password, new_password } }));
}

/** Creates an override. Repeating the request with the same `idempotencyKey` has no further effect. */
export function createOverride(
  user_id: string,
  request: CreateOverride,
  idempotencyKey: string,
): Promise<Tagged<UserOverride>> {
  const header = { 'Idempotency-Key': idempotencyKey };
  const params = { path: { user_id }, header };
  return tagged(client.POST('/api/admin/users/{user_id}/flag-overrides', { params, body: request }));
}

/** Replaces the override. Fails with status 412 if its entity tag is no longer `etag`. */
export function replaceOverride(
  user_id: string,
  flag_name: string,
  request: PutOverride,
  etag: string,
): Promise<Tagged<UserOverride>> {
  const params = { ...overridePath(user_id, flag_name), header: { 'If-Match': etag } };
  return tagged(client.PUT(OVERRIDE, { params, body: request }));
}

/** Changes fields of the override. With `etag`, fails with status 412 if the entity tag has changed. */
export function patchOverride(
  user_id: string,
  flag_name: string,
  request: PatchOverride,
  etag?: string,
): Promise<Tagged<UserOverride>> {
  const header = etag === undefined ? {} : { 'If-Match': etag };
  const params = { ...overridePath(user_id, flag_name), header };
  return tagged(client.PATCH(OVERRIDE, { params, body: request }));
}

export async function deleteOverride(user_id: string, flag_name: string): Promise<void> {
  await send(client.DELETE(OVERRIDE, { params: overridePath(user_id, flag_name) }));
}

export function changeOverrides(request: BulkRequest, idempotencyKey?: string): Promise<BulkResponse> {
  const header = idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey };
  return body(client.POST('/api/admin/flag-overrides/bulk', { params: { header }, body: request }));
}

export function patchFlag(flag_name: string, request: PatchFlag, etag: string): Promise<Tagged<Flag>> {
  const params = { path: { flag_name }, header: { 'If-Match': etag } };
  return tagged(client.PATCH('/api/admin/feature-flags/{flag_name}', { params, body: request }));
}

export function archiveFlag(flag_name: string): Promise<Tagged<AnyFlag>> {
  return tagged(client.POST('/api/admin/feature-flags/{flag_name}/archive', { params: { path: { flag_name } } }));
}

export function restoreFlag(flag_name: string): Promise<Tagged<Flag>> {
  return tagged(client.POST('/api/admin/feature-flags/{flag_name}/restore', { params: { path: { flag_name } } }));
}

export function createUser(request: CreateUser): Promise<Tagged<User>> {
  return tagged(client.POST('/api/admin/users', { body: request }));
}

export function patchUser(user_id: string, request: PatchUser, etag: string): Promise<Tagged<User>> {
  const params = { path: { user_id }, header: { 'If-Match': etag } };
  return tagged(client.PATCH('/api/admin/users/{user_id}', { params, body: request }));
}

export async function setUserPassword(user_id: string, password: string): Promise<void> {
  await send(client.PUT('/api/admin/users/{user_id}/password', { params: { path: { user_id } }, body: { password } }));
}

/** Deletes a user. With `erase`, also removes personal data from the audit log. */
export async function deleteUser(user_id: string, erase: boolean): Promise<void> {
  const query = erase ? { erase } : {};
  await send(client.DELETE('/api/admin/users/{user_id}', { params: { path: { user_id }, query } }));
}
