// What workers of an outbox share: a bell that wakes one when this process wrote something, with a poll for what others
// wrote, and writing down how a try went through a short outage.
import { setTimeout as pause } from 'node:timers/promises'

const settleTries = 5
const settlePauseMs = 1_000

export interface Bell {
  /** Heard `wakeMs` later: about what the transaction that wrote something takes to commit. */
  ring(): void
  /** Ends the rest now. */
  end(): void
  /** Until the bell is heard or the next poll is due. */
  rest(): Promise<void>
}

export function createBell(pollMs: number, wakeMs: number): Bell {
  let finish: (() => void) | undefined
  let isRung = false
  let isMissed = false
  const end = () => {
    if (finish) finish()
    else isMissed = true
  }
  return {
    end,
    ring() {
      if (isRung) return
      isRung = true
      setTimeout(() => {
        isRung = false
        end()
      }, wakeMs).unref()
    },
    async rest() {
      if (!isMissed) {
        const { promise, resolve } = Promise.withResolvers<void>()
        finish = resolve
        const timer = setTimeout(resolve, pollMs)
        timer.unref()
        await promise
        clearTimeout(timer)
        finish = undefined
      }
      isMissed = false
    },
  }
}

/** Writes down that something went out. Not writing it down would send it twice, so a short outage is waited for. */
export async function settle(write: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await write()
    } catch (error) {
      if (tries >= settleTries) throw error
      await pause(settlePauseMs)
    }
  }
}
