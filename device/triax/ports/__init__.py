"""Hardware, one module a platform: `linux` (CPython on a Raspberry Pi), `unix` (MicroPython on a PC), `esp32`, `rp2`.

A port has no logic. Each module has a class `Port(settings)`, `settings` being the dict of node.toml or node.json, with

    clock       ticks_us(): microseconds, may wrap at any power of two from 2^30 on. utc_us(): UTC in microseconds or None while
                unknown; utc_error_us: bound on its error
    store       read(name) -> bytes or None; write(name, data): atomic, OSError
    link        connect(host, port, tls): begins, True: ask `connected()` until it says True; None or False: it is connected.
                connected() raises LinkError. send(buffer, count) -> bytes taken, 0: not now. readinto(buffer) -> bytes, 0: closed
                by the peer, None: nothing now. close(). OSError: the connection is gone
    udp         None where the system keeps UTC, else send(data, host, port) and receive() -> bytes or None, for triax.sntp
    watchdog    feed()
    board       name, restart(), free_heap() or -1, signal_dbm() or 0
    files(name) a folder for triax.segments: names(), open(name), remove(name), sync(file)
    device(sensor, part)
                the triax.bus.SpiDevice or I2cDevice of a sensor (a dict of the settings) for this part class
    data_ready(sensor)
                None, or a callable that says whether the part's interrupt line is raised: a hint, levels are polled anyway
    wait(us)    give the processor away for about as long

What blocks, and for how long, stands at the top of each port.
"""
