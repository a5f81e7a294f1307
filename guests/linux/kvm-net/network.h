/* The machine's side of the network: the card, taps for guests, and the bridge between them. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

/* The card that the machine has. Waits until it has a link, and puts it on a bridge. */
void network_make(const uint8_t card[6]);

/* Makes a tap with this name on the bridge, as a virtual machine monitor would, and returns its file. */
int network_tap(const char *name);

/* Keeps the card's interrupts to itself, or lets those come that it has and will have. */
void card_hold(void);
void card_release(void);

/* Waits until the card, whose interrupts are held, has received so many frames since then. */
void card_wait(uint32_t frames);

/* Interrupts of the card since the start. */
uint64_t card_interrupts(void);

#endif
