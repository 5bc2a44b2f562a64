import { createLink } from '@tanstack/react-router';
import type { ComponentProps } from 'react';
import { type ButtonLook, buttonClass } from '../ui/Button';
import { classes } from '../ui/classes';

type LinkProps = ComponentProps<'a'> & ButtonLook;

function ButtonAnchor({ variant, small, iconOnly, className, ...props }: LinkProps) {
  const look: ButtonLook = {
    ...(variant && { variant }),
    ...(small !== undefined && { small }),
    ...(iconOnly !== undefined && { iconOnly }),
  };
  return <a {...props} className={classes(buttonClass(look), className)} />;
}

/** Link to a page that looks like a button. */
export const PageLink = createLink(ButtonAnchor);
