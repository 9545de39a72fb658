// What both peers in JavaScript share: the service's own scripts, called through ioredis.

import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';

const LIMIT = 3;
const SEATS = 10;
const TTL_SECONDS = Number(process.env.TTL_SECONDS);
const SECRET = process.env.SECRET;

const script = (name) => readFileSync(new URL(`../../streamlimit/lua/${name}.lua`, import.meta.url), 'utf8');

export const redis = new Redis(process.env.REDIS_URL, {
  enableAutoPipelining: process.env.AUTO_PIPELINING === '1',
  scripts: {
    admit: { numberOfKeys: SEATS + 3, lua: script('admit') },
    heartbeat: { numberOfKeys: 1, lua: script('heartbeat') },
  },
});

const lease = (streamId, expiresAt) => ({
  stream_id: streamId,
  expires_at: new Date(expiresAt).toISOString(),
  ttl_seconds: TTL_SECONDS,
  heartbeat_seconds: Math.round(TTL_SECONDS / 3 * (0.85 + 0.1 * Math.random()) * 1000) / 1000,
});

// Returns the admission, or null where the limit is reached.
export async function admit(userId, { device_id = null, device_name = null, content_id = null }) {
  const minted = Buffer.alloc(14);
  minted.writeUIntBE(Date.now(), 0, 6);
  minted.writeUInt8(LIMIT, 6);
  randomBytes(7).copy(minted, 7);
  const ref = minted.toString('base64url');
  const signature = createHmac('sha256', SECRET).update(`\0${userId}\0${ref}`).digest();
  const sig = signature.subarray(0, 12).toString('base64url');
  const keys = [`user:{${userId}}`, `ended:{${userId}}`, 'epoch:{0}'];
  for (let seat = 1; seat <= SEATS; seat++) keys.push(`stream:{${userId}}:${seat}`);
  const rules = [LIMIT, TTL_SECONDS * 1000, Math.floor(TTL_SECONDS * 1000 / 3), '', LIMIT, '', ''];
  const device = [device_id ?? '', device_name ?? '', content_id ?? ''];
  const reply = await redis.admit(...keys, '', ref, sig, ...rules, ...device, '', '1', '', '');
  if (reply[0] !== 'admitted') return null;
  const [, , live, limit, [seat, pttl, found, startedAt], , foundSig] = reply;
  return {
    stream_ref: `${seat}.${found}`, user_id: userId, seat, device_id, device_name, content_id,
    started_at: new Date(startedAt).toISOString(), live, limit, ...lease(`${seat}.${found}.${foundSig}`, startedAt + pttl),
  };
}

function beat(userId, streamId) {
  const [seat, ref, sig] = streamId.split('.');
  return [`stream:{${userId}}:${seat}`, TTL_SECONDS * 1000, ref, sig];
}

// Returns the lease, or null where the stream has ended.
export async function heartbeat(userId, streamId) {
  const [expiresAt] = await redis.heartbeat(...beat(userId, streamId));
  return expiresAt ? lease(streamId, expiresAt) : null;
}

// The same for many, in one pipeline.
export async function heartbeats(streams) {
  const pipeline = redis.pipeline();
  for (const { user_id, stream_id } of streams) pipeline.heartbeat(...beat(user_id, stream_id));
  const replies = await pipeline.exec();
  return replies.map(([error, ends], i) => {
    if (error) throw error;
    const [expiresAt] = ends;
    return expiresAt ? lease(streams[i].stream_id, expiresAt) : null;
  });
}
