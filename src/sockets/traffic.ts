/** What the sockets of one tier have sent and received since the start. Bytes are those of messages, headers sent included. */
export class Traffic {
  framesIn = 0
  bytesIn = 0
  framesOut = 0
  bytesOut = 0
  /** Writes that these frames left in. */
  writes = 0
  /** Frames that were never sent because a newer one took their place. */
  superseded = 0
  /** Frames that were not acted on because there were too many. */
  limited = 0
  /** Connections that were closed because they read too slowly. */
  slowCloses = 0

  /** One write has left. @param bytes headers included, before compression */
  wrote (frames: number, bytes: number): void {
    this.writes++
    this.framesOut += frames
    this.bytesOut += bytes
  }
}
